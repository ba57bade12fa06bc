"""Oracle: the files a command writes, opened again, against the same question asked in Python; the bundled cards."""

import json
import textwrap
from inspect import getsource

import numpy as np
import pytest
import torch

import strobe
from strobe.cli import main
from strobe.core.result import load_result
from strobe.dashboards import features_work
from strobe.probes.sae import SparseAutoencoder, bundled_saes, evaluate_sae, feature_atlas, feature_play, feature_text

TEXT = "def area(self, r):\n    return 3.14159 * r * r\n"


@pytest.fixture(autouse=True)
def short_library(monkeypatch):
    """One module stands for the library."""
    monkeypatch.setattr(features_work, "python_text", lambda loaded: loaded.model.tokenize(getsource(textwrap))[0][0])


def test_a_text_is_read_with_the_bundled_autoencoder(tmp_path, capsys):
    out = tmp_path / "text.csv"
    asked = ["sae", "transformer-python", "--show", "text", "--text", TEXT, "--feature", "7", "--out", str(out)]
    assert main(asked) == 0
    model = strobe.load("transformer-python")
    expected = feature_text(model, SparseAutoencoder.bundled("transformer-python"), TEXT, [7])
    found = load_result(out.with_suffix(".safetensors"))
    assert found.features == expected.features
    np.testing.assert_array_equal(found.activations, expected.activations)


def test_one_is_trained_kept_with_its_card_and_measured_as_stored(tmp_path, capsys):
    folder, out = tmp_path / "trained", tmp_path / "evaluation.json"
    asked = [
        "sae", "transformer-python", "--train", str(folder), "--out", str(out), "--hook-name", "blocks.0.hook_mlp_out",
        "--width", "48", "--k", "5", "--vectors", "1024", "--batch", "128", "--buffer", "512", "--dtype", "bfloat16",
        "--tokens", "512",
    ]  # fmt: skip
    assert main(asked) == 0
    card = json.loads((folder / "card.json").read_text())
    assert card["command"].startswith("strobe sae transformer-python --train FOLDER --out FILE --hook-name blocks.0.")
    sae = SparseAutoencoder.load(folder, strobe.load("transformer-python"), hook_name="blocks.0.hook_mlp_out")
    assert (sae.d_sae, sae.k, card["weights_hash"]) == (48, 5, sae.weights_hash())
    measured = load_result(out.with_suffix(".safetensors"))
    table = card["tables"][0]
    assert table["rows"][0][table["columns"].index("explained_variance")] == pytest.approx(
        measured.explained_variance[0], abs=1e-4
    )
    assert main([*asked[:2], "--sae", str(folder), "--tokens", "512", "--out", str(out)]) == 0
    assert load_result(out.with_suffix(".safetensors")) == measured or np.allclose(
        load_result(out.with_suffix(".safetensors")).explained_variance, measured.explained_variance
    )


def test_a_feature_is_turned_up_and_out_beside_its_twin(tmp_path, capsys):
    out = tmp_path / "play.csv"
    asked = ["--feature", "7", "--text", TEXT, "--new-tokens", "4", "--times", "2", "--tokens", "1024", "--seed", "3"]
    assert main(["sae", "transformer-python", "--show", "play", *asked, "--out", str(out)]) == 0
    model = strobe.load("transformer-python")
    sae = SparseAutoencoder.bundled("transformer-python")
    atlas = feature_atlas(model, sae, model.tokenize(getsource(textwrap))[0][0], n_tokens=1024, seed=3)
    twin, found = atlas.twin(7), load_result(out.with_suffix(".safetensors"))
    control = (twin, 2 * float(atlas.maximum[twin]))
    expected = feature_play(model, sae, TEXT, 7, 2 * float(atlas.maximum[7]), control, max_new_tokens=4, seed=3)
    assert (found.feature, found.control_feature) == (7, twin) and found.continuations == expected.continuations
    np.testing.assert_allclose(found.surprise, expected.surprise, atol=1e-5)
    assert not found.partial and "feature 7" in capsys.readouterr().out


def test_what_cannot_be_is_said(tmp_path, capsys):
    out = ["--out", str(tmp_path / "x.json")]
    folder = str(bundled_saes("mamba2-python")["sae-resid-post-1"])
    for asked, said in (
        (["transformer-python", "--sae", folder, "--show", "text", "--text", "a"], "belongs to mamba2-python"),
        (["transformer-python", "--show", "text"], "no text was given"),
        (["gru-python"], "bundled: none"),
        (["transformer-python", "--show", "text", "--text", "a", "--feature", "5000"], "0 to 1023"),
        (["transformer-python", "--show", "atlas", "--feature", "1024"], "0 to 1023"),
        (["transformer-python", "--show", "play", "--text", "a"], "give --feature"),
        (["transformer-python", "--show", "play", "--feature", "3"], "no text was given"),
    ):
        assert main(["sae", *asked, *out]) != 0
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["transformer-python", "mamba2-python"])
def test_the_bundled_ones_are_those_of_their_cards_and_reconstruct(name):
    model = strobe.load(name)
    for kind, folder in bundled_saes(name).items():
        sae = SparseAutoencoder.load(folder, model)
        card = json.loads((folder / "card.json").read_text())
        assert card["weights_hash"] == sae.weights_hash() and card["model_hash"] == model.weights_hash()
        assert sum(f.stat().st_size for f in folder.iterdir()) < 1.5e6
        assert torch.equal(sae.rounded(torch.bfloat16).W_dec, sae.W_dec)
        if "resid" in kind:
            tokens = model.tokenize(getsource(textwrap))[0][0]
            found = evaluate_sae(model, sae, tokens, held_out=tokens, n_tokens=1024)
            assert found.explained_variance[0] > 0.8 > found.explained_variance[1] + 0.2
            assert found.recovered()[0] > 0.9 > found.recovered()[2] + 0.1
