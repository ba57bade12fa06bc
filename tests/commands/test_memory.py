"""Oracle: the result file a command writes, opened again, against the analysis asked for in Python."""

import numpy as np
import pytest

from strobe.cli import main
from strobe.core.result import load_result


def test_the_command_writes_what_the_analysis_answers(tmp_path, capsys):
    out = tmp_path / "carry.html"
    asked = ["memory", "parity-gru", "--tokens", "50", "--rows", "3", "--train-length", "20", "--out", str(out)]
    assert main(asked) == 0
    result = load_result(out.with_suffix(".safetensors"))
    assert result.time == 50 and result.train_length == 20 and result.mixers == ("GRU",)
    # The task's own targets: parity is answered rightly far beyond, too.
    assert np.nanmin(result.window_accuracy) > 0.9
    assert "none of this is collapse" in capsys.readouterr().out
    assert "<html" in out.read_text()[:200].lower()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--analysis", "capacity"], "reads neither text nor the recall task"),
        (["--text", "abc"], "cannot be shown a text"),
        (["--analysis", "loss", "--tokens", "20"], "give a longer input"),
    ],
)
def test_what_does_not_apply_is_said(extra, said, tmp_path, capsys):
    assert main(["memory", "parity-gru", "--out", str(tmp_path / "x.json"), *extra]) != 0
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("analysis", ["carry", "mitigations", "curve"])
def test_a_transformer_is_told_what_applies_instead(analysis, tmp_path, capsys):
    asked = ["memory", "transformer-python", "--analysis", analysis, "--tokens", "64", "--rows", "2"]
    assert main([*asked, "--train-length", "16", "--out", str(tmp_path / "x.json")]) != 0
    said = capsys.readouterr().err
    assert "no recurrent layer; loss, remembrance, capacity apply to any model" in said
    assert "depth can be its time: strobe depth" in said


def test_the_laws_of_the_bundled_family_are_written(tmp_path, capsys):
    out = tmp_path / "laws.json"
    assert main(["memory-laws", "--figure", "recall", "--out", str(out)]) == 0
    family = load_result(out.with_suffix(".safetensors"))
    said = capsys.readouterr().out
    assert f"T_forget: {family.said('forget')}" in said and f"T_recall: {family.said('recall')}" in said
    assert "published (Chen et al. 2024)" in out.read_text()
    table = tmp_path / "laws.csv"
    assert main(["memory-laws", "--out", str(table)]) == 0
    assert len(table.read_text().splitlines()) == 1 + family.inside.size


def test_what_is_trained_is_said_together_with_where(tmp_path, capsys):
    assert main(["memory-laws", "--states", "8", "--out", str(tmp_path / "x.json")]) != 0
    assert "add --train FOLDER" in capsys.readouterr().err
