"""Oracle: the files that were written, opened again, beside the same question asked of the library."""

import json
import re
import warnings

import numpy as np
import pytest
from cutting import ctrl_c_at

from strobe import cli
from strobe.probes.lens import CodaLens, IterativeInference, LoopedBlocks, coda_lens, iterative_inference
from strobe.probes.lens.fit_report import UndertrainedLensWarning

TEXT = "def area(radius):\n    return 3.14159 * radius ** 2\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from strobe.models import HookedLM, ModelConfig, save_checkpoint
    from strobe.models.corpus import load_tokenizer, train_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    file = folder.parent / "tokenizer.json"
    train_tokenizer([TEXT * 3], 260).save(str(file))
    options = {"gru": {"hidden": 6}}
    config = ModelConfig(d_model=8, d_vocab=260, layers=["gru"] * 4, mixer_options=options, mlp="none")
    save_checkpoint(HookedLM(config, tokenizer=load_tokenizer(file), name="tiny"), folder)
    return folder


def strobe(*arguments):
    return cli.main([str(a) for a in arguments])


@pytest.mark.parametrize(
    ("option", "title"), [("--iterative", "Does each block go downhill"), ("--delete", "Loss without each block")]
)
def test_iterative_inference_is_the_librarys(tiny, tmp_path, option, title):
    from strobe.models import load_checkpoint

    out = tmp_path / "i.json"
    assert strobe("lens", tiny, option, "--logit", "--text", TEXT, "--seed", 2, "--out", out) == 0
    kept = IterativeInference.load(tmp_path / "i.safetensors")
    np.testing.assert_array_equal(kept.cosine, iterative_inference(load_checkpoint(tiny), TEXT, seed=2).cosine)
    assert json.loads(out.read_text())["layout"]["title"]["text"].startswith(title)


def test_the_coda_lens_is_the_librarys(tiny, tmp_path):
    from strobe.models import load_checkpoint

    assert strobe("lens", tiny, "--coda", 1, 1, 1, "--text", TEXT, "--out", tmp_path / "c.json") == 0
    kept = CodaLens.load(tmp_path / "c.safetensors")
    expected = coda_lens(LoopedBlocks(load_checkpoint(tiny), 1, 1, 1), TEXT)
    np.testing.assert_array_equal(kept.rank, expected.rank)
    assert kept.steps == [0, 1, 2, 3]


def test_on_ctrl_c_the_rows_read_by_then_are_written(tiny, tmp_path, monkeypatch, capsys):
    from strobe.models import load_checkpoint

    # Sixteen rows run together, in nine passes: the second batch has begun.
    steps = ctrl_c_at(monkeypatch, 10)
    out = tmp_path / "i.json"
    assert strobe("lens", tiny, "--iterative", "--logit", "--text", TEXT * 40, "--seed", 2, "--out", out) == 130
    kept = IterativeInference.load(tmp_path / "i.safetensors")
    whole = iterative_inference(load_checkpoint(tiny), TEXT * 40, seed=2)
    assert re.match(r"cut short after 16 of \d+ rows", kept.partial) and len(steps) == 10 and not whole.partial
    np.testing.assert_array_equal(kept.cosine, whole.cosine[..., : kept.cosine.shape[-1]])
    assert "stopped; what was found by then" in capsys.readouterr().out


def test_on_ctrl_c_the_lens_is_written_as_it_was_and_a_trajectory_is_not(tiny, tmp_path, monkeypatch, capsys):
    from strobe.models import load_checkpoint
    from strobe.probes.lens import TunedLens

    file, out = tmp_path / "lens.safetensors", tmp_path / "t.json"
    asked = ["lens", tiny, "--train", "--lens", file, "--steps", 9, "--text", TEXT, "--out", out]
    # The text is read first, so that the fifth step told is the fourth of the fit; it ends at the one after.
    ctrl_c_at(monkeypatch, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndertrainedLensWarning)
        assert strobe(*asked) == 130
    (kept,) = tmp_path.iterdir()
    lens = TunedLens.load(kept, load_checkpoint(tiny))
    assert lens.report.steps[-1] == 5 and not file.exists()
    assert f"stopped; the lens as it was is in {kept}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --text or --text-file"),
        (("--coda", 1, 1, 1), "give --text or --text-file"),
        (("--coda", 1, 3, 1, "--text", TEXT), "must be a multiple of the core"),
        (("--coda", 1, 1, 1, "--logit", "--text", TEXT), "leave out --logit"),
    ],
)
def test_what_makes_no_sense_is_said(tiny, tmp_path, capsys, options, said):
    assert strobe("lens", tiny, *options, "--out", tmp_path / "x.json") != 0
    assert said in capsys.readouterr().err
