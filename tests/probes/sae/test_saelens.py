"""Oracle: SAELens 6.54.12 itself, by the weights, inputs and outputs that `fixtures/make_saelens.py` wrote with it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from strobe.probes.sae import SparseAutoencoder
from strobe.probes.sae.autoencoder import Factors

FIXTURES = Path(__file__).parent / "fixtures"
CASES = sorted(p.name for p in FIXTURES.glob("saelens-*"))


@pytest.mark.parametrize("case", CASES)
def test_features_and_reconstruction_are_saelens_own(case):
    sae = SparseAutoencoder.load(FIXTURES / case)
    theirs = load_file(FIXTURES / case / "outputs.safetensors")
    features = sae.encode(theirs["x"])
    assert (theirs["features"] > 0).any() and (theirs["features"] == 0).any()
    torch.testing.assert_close(features, theirs["features"], rtol=0, atol=1e-6)
    assert torch.equal(features > 0, theirs["features"] > 0)
    torch.testing.assert_close(sae.decode(features, theirs["x"]), theirs["reconstruction"], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_again_has_the_very_bytes_and_every_key_that_saelens_wrote(case, tmp_path):
    folder = SparseAutoencoder.load(FIXTURES / case).save(tmp_path / "again")
    weights = "sae_weights.safetensors"
    assert (folder / weights).read_bytes() == (FIXTURES / case / weights).read_bytes()
    ours, theirs = (json.loads((f / "cfg.json").read_text()) for f in (folder, FIXTURES / case))
    for each in (ours, theirs):
        for name in ("sae_lens_training_version", "hook_head_index", "strobe"):
            each["metadata"].pop(name, None)
    assert ours == theirs


def test_a_matrix_dictionary_comes_back_with_its_factors_and_flattens_into_the_same_features(
    native, make_sae, tmp_path
):
    generator = torch.Generator().manual_seed(0)
    factors = Factors(*(torch.randn(9, n, generator=generator) for n in (5, 4, 5, 4)))
    W_enc, W_dec = factors.weights()
    name = "blocks.0.mixer.hook_state_S"
    sae = make_sae(native, name, 20, 9, W_enc=W_enc, W_dec=W_dec, factors=factors, k=3, head=1, state_shape=(5, 4))
    again = SparseAutoencoder.load(sae.rounded(torch.bfloat16).save(tmp_path / "s", dtype=torch.bfloat16), native)
    assert again.factors is not None and (again.head, again.state_shape) == (1, (5, 4))
    assert (tmp_path / "s" / "sae_weights.safetensors").stat().st_size < 1200
    S = torch.randn(3, 5, 4, generator=generator)
    by_hand = torch.einsum("fk,nkv,fv->nf", again.factors.enc_key, S - again.b_dec.view(5, 4), again.factors.enc_value)
    torch.testing.assert_close(again.pre_activations(S.flatten(1)), by_hand + again.b_enc, rtol=1e-4, atol=1e-5)
    flat = SparseAutoencoder.load(again.flattened().save(tmp_path / "flat"))
    assert json.loads((tmp_path / "flat" / "cfg.json").read_text())["architecture"] == "topk"
    assert torch.equal(flat.encode(S.flatten(1)), again.encode(S.flatten(1)))


def test_rounding_is_refused_unless_it_was_asked_for_and_the_hash_is_of_what_is_stored(native, make_sae, tmp_path):
    sae = make_sae(native, "blocks.1.hook_resid_post", 16)
    with pytest.raises(ValueError, match="would round its numbers"):
        sae.save(tmp_path / "a", dtype=torch.bfloat16)
    rounded = sae.rounded(torch.bfloat16)
    again = SparseAutoencoder.load(rounded.save(tmp_path / "a", dtype=torch.bfloat16))
    assert again.weights_hash() == rounded.weights_hash() != sae.weights_hash()
    assert torch.equal(again.W_enc, rounded.W_enc) and again.model_hash == native.weights_hash()


def _damage(folder, what):
    config, weights = folder / "cfg.json", folder / "sae_weights.safetensors"
    if what == "cut":
        weights.write_bytes(weights.read_bytes()[:100])
    elif what == "tensor":
        save_file({n: t for n, t in load_file(weights).items() if n != "b_dec"}, weights)
    elif what == "other":
        save_file({n: t + 1 for n, t in load_file(weights).items()}, weights)
    elif what == "nan":
        save_file({n: t * torch.nan for n, t in load_file(weights).items()}, weights)
    elif what == "text":
        config.write_text("{")
    else:
        config.write_text(json.dumps({**json.loads(config.read_text()), **what}))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("cut", "not a whole safetensors file"),
        ("tensor", "lacks the tensor 'b_dec'"),
        ("other", "not those that were saved"),
        ("nan", "not finite"),
        ("text", "not JSON"),
        ({"architecture": "gated"}, "'gated'; strobe reads"),
        ({"normalize_activations": "covariance_whitening"}, "use SAELens"),
        ({"metadata": {}}, "does not say at which hook point"),
        ({"k": 0}, "k=0; give 1 to 40"),
    ],
)
def test_a_damaged_or_foreign_directory_is_refused_with_the_reason(native, make_sae, tmp_path, what, said):
    folder = make_sae(native, "blocks.1.hook_resid_post", 16).save(tmp_path / "s")
    _damage(folder, what)
    with pytest.raises(ValueError, match=said):
        SparseAutoencoder.load(folder)


def test_one_of_another_model_place_or_width_is_refused_with_the_reason(native, make_sae, tmp_path):
    name = "blocks.1.hook_resid_post"
    sae = make_sae(native, name, 16)
    sae.check(native, name)
    with pytest.raises(ValueError, match="different spaces"):
        sae.check(native, "blocks.0.hook_resid_post")
    with pytest.raises(ValueError, match="belongs to tiny with weights abc"):
        replace(sae, model_hash="abc").check(native)
    with pytest.raises(ValueError, match=r"reads 8 numbers .* has 16"):
        make_sae(native, name, 8).check(native)
    with pytest.raises(ValueError, match="reads 16 numbers; it was given 12"):
        sae.encode(torch.zeros(2, 12))
    with pytest.raises(IndexError, match=r"feature 40 .* 0 to 39"):
        sae.check_features([3, 40])
    with pytest.raises(ValueError, match="bundled: none"):
        SparseAutoencoder.bundled("no-such-model")
