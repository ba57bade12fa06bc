"""Oracle: whole passes with a hook that replaces one token, one at a time, on native and transformers' own models."""

import numpy as np
import pytest
import torch
import transformers as tf
from live_bytes import LiveBytes

from strobe.models import HookedLM, ModelConfig
from strobe.models.huggingface import load_huggingface
from strobe.probes.geometry import functional
from strobe.probes.geometry.functional import replacement_kl, variants

COMMON = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
tf.logging.disable_progress_bar()


def native():
    options = {"mamba2": {"heads": 3, "head_dim": 4, "state": 5}, "attention": {"n_heads": 2}, "gru": {"hidden": 9}}
    layers = ("mamba2", "attention", "gru")
    return HookedLM(ModelConfig(d_model=16, d_vocab=61, layers=layers, mixer_options=options, mlp="plain", d_mlp=24))


def huggingface(kind, folder):
    torch.manual_seed(2)
    if kind == "gpt2":
        theirs = tf.GPT2LMHeadModel(tf.GPT2Config(n_embd=16, n_layer=3, n_head=2, n_positions=64, **COMMON))
    else:
        theirs = tf.MambaForCausalLM(
            tf.MambaConfig(hidden_size=16, state_size=4, time_step_rank=3, num_hidden_layers=3, **COMMON)
        )
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    theirs.eval().save_pretrained(folder)
    return load_huggingface(folder, dtype=torch.float32)


@pytest.fixture(scope="module", params=["native", "gpt2", "mamba"])
def model(request, tmp_path_factory):
    return native() if request.param == "native" else huggingface(request.param, tmp_path_factory.mktemp("hf"))


@pytest.mark.parametrize("horizon", [1, 3])
def test_one_token_is_replaced_and_nothing_else(model, horizon):
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 61, (5, 9), generator=generator)
    positions, layer = [2, 5, 8], 1
    put = torch.randn(5, 3, 2, 16, generator=generator)
    got = replacement_kl(model, tokens, positions, layer, put, horizon)
    name = f"blocks.{layer}.hook_resid_post"
    with torch.no_grad():
        plain = model(tokens).double().log_softmax(-1)
        for at, position in enumerate(positions):
            for variant in range(2):

                def replaced(x, hook, at=at, position=position, variant=variant):
                    x = x.clone()
                    x[:, position] = put[:, at, variant]
                    return x

                there = model.run_with_hooks(tokens, fwd_hooks=[(name, replaced)]).double().log_softmax(-1)
                kl = (plain.exp() * (plain - there)).sum(-1)
                expected = kl[:, position : position + horizon].sum(1)
                np.testing.assert_allclose(got[:, at, variant], expected.numpy(), rtol=2e-4, atol=1e-7)
                assert expected.min() > 1e-4


def test_pieces_of_the_work_make_the_whole(model, monkeypatch):
    generator = torch.Generator().manual_seed(2)
    tokens, put = torch.randint(3, 61, (5, 9), generator=generator), torch.randn(5, 2, 3, 16, generator=generator)
    whole = replacement_kl(model, tokens, [0, 6], 1, put)
    ran = []
    run = functional._run
    monkeypatch.setattr(functional, "_run", lambda *given: ran.append(tuple(given[4].shape[:2])) or run(*given))
    # (texts, replacements of each) that go on at once.
    pieces = (("_TEXTS", 2, (2, 3)), ("_HELD", 1, (1, 3)), ("_ROWS", 8, (2, 3)), ("_ROWS", 3, (1, 2)))
    for name, value, most in (*pieces, ("_COPIED", 1, (1, 1)), ("_LOGITS", 61, (1, 1))):
        with monkeypatch.context() as patch:
            patch.setattr(functional, name, value)
            ran.clear()
            np.testing.assert_allclose(replacement_kl(model, tokens, [0, 6], 1, put), whole, rtol=1e-4, atol=1e-8)
            assert max(ran) == most


def test_a_token_put_in_its_own_place_changes_nothing(model):
    tokens = torch.randint(3, 61, (4, 7))
    with torch.no_grad():
        y = model.run_with_cache(tokens, names_filter="blocks.2.hook_resid_post")[1]["blocks.2.hook_resid_post"]
    assert replacement_kl(model, tokens, [1, 6], 2, y[:, [1, 6], None]).max() < 1e-9


def test_controls_have_the_residuals_length_and_another_direction():
    generator = torch.Generator().manual_seed(1)
    y, mapped = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((40, 8), (40, 3, 8)))
    put = variants(y, mapped, 0).unflatten(1, (3, 3))
    torch.testing.assert_close(put[:, 0], mapped)
    residual = y[:, None, None] - put
    length = residual[:, :1].norm(dim=-1).expand(40, 3, 3)
    torch.testing.assert_close(residual.norm(dim=-1), length)
    own = residual[:, :1] / length[:, :1, :, None]
    cosine = (own * residual[:, 1:] / length[:, 1:, :, None]).sum(-1)
    assert cosine.abs().max() < 0.99 and cosine.abs().mean() < 0.4
    # The permuted residual is another token's, and no token's own.
    units = residual[:, 2] / residual[:, 2].norm(dim=-1, keepdim=True)
    match = torch.einsum("imd,jmd->mij", units, own[:, 0]) > 1 - 1e-9
    assert (match.sum(-1) == 1).all() and not match.diagonal(dim1=1, dim2=2).any()
    assert (match[0] == match[1]).all()
    # Where there is no residual, nothing is put there.
    torch.testing.assert_close(variants(y, y[:, None], 0), y[:, None].expand(40, 3, 8))


def test_a_deep_model_takes_fewer_copies_at_a_time_and_no_more_memory(monkeypatch):
    monkeypatch.setattr(functional, "_HELD", 2**13)
    monkeypatch.setattr(functional, "_COPIED", 2**17)
    generator = torch.Generator().manual_seed(0)
    tokens, put = torch.randint(3, 61, (4, 25), generator=generator), torch.randn(4, 1, 30, 16, generator=generator)

    def peak(n_layers):
        options = {"attention": {"n_heads": 2}}
        layers = ("attention",) * n_layers
        model = HookedLM(ModelConfig(d_model=16, d_vocab=61, layers=layers, mixer_options=options, mlp="none"))
        replacement_kl(model, tokens[:1], [24], 1, put[:1])
        with LiveBytes() as live:
            replacement_kl(model, tokens, [24], 1, put)
        return live.peak

    # Without either bound twice the layers are twice the bytes.
    assert 200_000 < peak(8) < 1.05 * peak(4)
