"""Oracle: the files that were written, opened again, beside the same question asked of the library."""

import json

import numpy as np
import pytest

from strobe import cli
from strobe.probes.depth import BlockRecurrence, DepthDynamics, depth_dynamics
from strobe.probes.geometry import LayerGeometry, layer_geometry

TEXT = "def area(radius):\n    return 3.14159 * radius ** 2\n" * 40


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from strobe.models import HookedLM, ModelConfig, save_checkpoint
    from strobe.models.corpus import load_tokenizer, train_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    file = folder.parent / "tokenizer.json"
    train_tokenizer([TEXT], 260).save(str(file))
    options = {"attention": {"n_heads": 2}}
    config = ModelConfig(d_model=8, d_vocab=260, layers=["attention"] * 3, mixer_options=options, mlp="none")
    save_checkpoint(HookedLM(config, tokenizer=load_tokenizer(file), name="tiny"), folder)
    return folder


def strobe(*arguments):
    return cli.main([str(a) for a in arguments])


def test_geometry_writes_what_the_library_finds(tiny, tmp_path, capsys):
    from strobe.models import load_checkpoint

    out = tmp_path / "geometry.json"
    asked = ("--layers", 1, "--bank", 200, "--judged", 16, "--neighbours", 12, "--rank", 2, "--seed", 3)
    assert strobe("geometry", tiny, "--text", TEXT, *asked, "--show", "error", "--out", out) == 0
    kept = LayerGeometry.load(tmp_path / "geometry.safetensors")
    expected = layer_geometry(load_checkpoint(tiny), TEXT, layers=[1], n_bank=200, n_judged=16, k=12, rank=2, seed=3)
    np.testing.assert_array_equal(kept.error_update, expected.error_update)
    np.testing.assert_array_equal(kept.kl, expected.kl)
    figure = json.loads(out.read_text())
    assert figure["layout"]["title"]["text"].startswith("What a tokenwise map leaves over")
    assert "control, identity" in capsys.readouterr().out
    assert strobe("geometry", tiny, "--text", TEXT, *asked, "--show", "correlation", "--out", out) == 0
    assert "Does a larger residual" in json.loads(out.read_text())["layout"]["title"]["text"]


def test_depth_writes_motion_phases_and_surrogates(tiny, tmp_path, capsys):
    from strobe.models import load_checkpoint

    out = tmp_path / "depth.json"
    assert strobe("depth", tiny, "--text", TEXT, "--show", "phases", "--phases", 2, "--out", out) == 0
    kept = DepthDynamics.load(tmp_path / "depth.safetensors")
    np.testing.assert_array_equal(kept.convergence, depth_dynamics(load_checkpoint(tiny), TEXT).convergence)
    assert "best 2 contiguous phases" in json.loads(out.read_text())["layout"]["title"]["subtitle"]["text"]
    shared = tmp_path / "shared.json"
    rows = tmp_path / "text.txt"
    rows.write_text(TEXT * 6)
    assert strobe("depth", tiny, "--text-file", rows, "--shared", 2, "--steps", 4, "--out", shared) == 0
    surrogate = BlockRecurrence.load(tmp_path / "shared.safetensors")
    assert surrogate.k == (2,) and surrogate.steps.tolist() == [0, 1, 2, 3, 4]
    assert "k = 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("depth", "--steps", 5), "--steps was given"),
        (("depth", "--phases", 2), "--phases marks phases"),
        (("geometry", "--layers", 7), "has 0 to 2"),
        (("geometry", "--text", "def f"), "128 rows to judge by were asked for"),
    ],
)
def test_what_makes_no_sense_is_said(tiny, tmp_path, capsys, options, said):
    name, *rest = options
    assert strobe(name, tiny, *rest, "--out", tmp_path / "x.json") != 0
    assert said in capsys.readouterr().err
