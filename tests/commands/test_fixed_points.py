"""Oracle: the files that were written, opened again, beside the same question asked of the library."""

import json

import numpy as np
import pytest
import torch

import strobe as library
from strobe import cli
from strobe.core.result import load_result
from strobe.probes.fixed_points import fixed_points, held_fixed_point, held_stack

TEXT = "def area(r):\n    return r * 2"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from strobe.models import HookedLM, ModelConfig, save_checkpoint
    from strobe.models.corpus import load_tokenizer, train_tokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    file = folder.parent / "tokenizer.json"
    train_tokenizer([TEXT] * 3, 262).save(str(file))
    options = {"mamba2": {"heads": 2, "head_dim": 4, "state": 3}, "gru": {"hidden": 6}, "attention": {"n_heads": 2}}
    config = ModelConfig(
        d_model=8, d_vocab=262, layers=["mamba2", "gru", "attention"], mixer_options=options, mlp="none"
    )
    save_checkpoint(HookedLM(config, tokenizer=load_tokenizer(file), name="tiny"), folder)
    return folder


def strobe(*arguments):
    return cli.main([str(a) for a in arguments])


def test_the_points_of_a_network_of_numbers(tmp_path, capsys):
    out = tmp_path / "points.json"
    asked = ("flipflop-elman16", "--input", 1, 0, 0, "--initial", 64, "--figure", "eigenvalues")
    assert strobe("fixed-points", *asked, "--out", out) == 0
    kept = load_result(out.with_suffix(".safetensors"))
    expected = fixed_points(library.load("flipflop-elman16"), held=[1.0, 0.0, 0.0], n_initial=64)
    np.testing.assert_array_equal(kept.points, expected.points)
    assert json.loads(out.read_text())["layout"]["title"]["text"].startswith("Eigenvalues of the Jacobian")
    assert "completeness" in capsys.readouterr().out


def test_a_linear_layer_a_stack_and_tokens_in_turn(tiny, tmp_path):
    model = library.load(str(tiny))
    out = tmp_path / "held.csv"
    assert strobe("fixed-points", tiny, "--text", "def", "--layer", 0, "--out", out) == 0
    np.testing.assert_array_equal(
        load_result(out.with_suffix(".safetensors")).cycle, held_fixed_point(model, "def", 0).cycle
    )
    assert strobe("fixed-points", tiny, "--what", "stack", "--text", "d", "--out", out) == 0
    np.testing.assert_array_equal(
        load_result(out.with_suffix(".safetensors")).eigenvalues, held_stack(model, "d").eigenvalues
    )


@pytest.mark.parametrize("what", ["basins", "directions", "cycles", "curves", "exponents", "exchange"])
def test_everything_else_is_written(what, tiny, tmp_path, capsys):
    out = tmp_path / "answer.html"
    assert strobe("fixed-points", tiny, "--what", what, "--text", "d", "--layer", 1, "--initial", 16, "--out", out) == 0
    kept = load_result(out.with_suffix(".safetensors"))
    assert kept.summary().splitlines()[0] in capsys.readouterr().out
    assert out.stat().st_size > 1000


def test_the_points_while_a_network_learned(tmp_path):
    out = tmp_path / "training.json"
    asked = ("flipflop-on-its-way", "--what", "training", "--initial", 32)
    assert strobe("fixed-points", *asked, "--out", out) == 0
    kept = load_result(out.with_suffix(".safetensors"))
    assert len(kept.found[0].points) == 1
    assert np.bincount(kept.found[-1].index).tolist() == [8, 12, 6, 1]
    frames = json.loads(out.read_text())["frames"]
    assert [f["name"] for f in frames] == [str(s) for s in kept.steps]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("flipflop-elman16", "--text", "a", "--input", 1), "give one"),
        (("flipflop-elman16", "--what", "training"), "came without them"),
        (("flipflop-elman16", "--input", 1), "3 finite numbers"),
        (("flipflop-elman16", "--what", "basins", "--figure", "completeness"), "no such figure"),
    ],
)
def test_what_cannot_be_done_is_said(asked, said, tmp_path, capsys):
    assert strobe("fixed-points", *asked, "--initial", 16, "--out", tmp_path / "x.json") != 0
    assert said in capsys.readouterr().err


def test_a_model_that_reads_tokens_needs_one(tiny, tmp_path, capsys):
    assert strobe("fixed-points", tiny, "--out", tmp_path / "x.json") != 0
    assert "give --text" in capsys.readouterr().err
