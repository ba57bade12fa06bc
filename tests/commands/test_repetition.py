"""Oracle: the files that were written, opened again, beside the same question asked of the library."""

import json

import numpy as np
import pytest
from tiny_text import save_tiny_gru

from strobe import cli
from strobe.core.result import load_result
from strobe.models import load_checkpoint
from strobe.probes.attribution import direct_logit_attribution
from strobe.probes.repetition import (
    greedy_loop,
    head_scores,
    self_reinforcement,
    structural_repetition,
    text_repetition,
)

TEXT = "a = 1\nb = 2\n" * 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_gru(tmp_path_factory.mktemp("models") / "tiny", TEXT * 9, 258)


def strobe(*arguments):
    return cli.main([str(a) for a in arguments])


ASKED = {
    "text": (("--text", TEXT), lambda model: text_repetition(TEXT, model, seed=3), "Repetition of a text"),
    "structure": (
        ("--text", TEXT, "--kind", "tokenize"),
        lambda model: structural_repetition(TEXT, kind="tokenize", seed=3),
        "Tandem repeats",
    ),
    "reinforcement": (
        ("--text", TEXT, "--prefix", "x", "--copies", 4),
        lambda model: self_reinforcement(model, [TEXT], prefix="x", copies=4, seed=3),
        "Self-reinforcement",
    ),
    "heads": ((), lambda model: head_scores(model, seed=3), "Induction"),
    "loop": (
        ("--text", TEXT, "--tokens", 9),
        lambda model: greedy_loop(model, TEXT, max_new_tokens=9, seed=3),
        "A greedy loop",
    ),
}


@pytest.mark.parametrize("what", ASKED)
def test_each_writes_what_the_library_finds(tiny, tmp_path, capsys, what):
    options, ask, title = ASKED[what]
    out = tmp_path / "r.json"
    assert strobe("repetition", what, tiny, *options, "--seed", 3, "--out", out) == 0
    expected = ask(load_checkpoint(tiny))
    kept = load_result(tmp_path / "r.safetensors")
    assert type(kept) is type(expected)
    for name, value in vars(expected).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(kept, name), value)
    assert json.loads(out.read_text())["layout"]["title"]["text"].startswith(title)
    assert expected.summary() in capsys.readouterr().out


def test_attribution_writes_what_the_library_finds(tiny, tmp_path, capsys):
    out = tmp_path / "a.json"
    asked = ("--text", TEXT, "--answer", "a", "--other", "b", "--position", 2, "--accumulated")
    assert strobe("attribution", tiny, *asked, "--out", out) == 0
    expected = direct_logit_attribution(load_checkpoint(tiny), TEXT, "a", "b", position=2)
    kept = load_result(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(kept.contributions, expected.contributions)
    assert kept.labels == [("a", "b")]
    assert json.loads(out.read_text())["layout"]["title"]["text"].startswith("Logit difference accumulated")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("text",), "none was given"),
        (("heads", "--text", "a"), "makes its own tokens"),
        (("structure", "--text", "a = ("), "does not parse"),
        (("features",), "bundled: none"),
    ],
)
def test_what_makes_no_sense_is_said(tiny, tmp_path, capsys, options, said):
    what, *rest = options
    assert strobe("repetition", what, tiny, *rest, "--out", tmp_path / "x.json") != 0
    assert said in capsys.readouterr().err
