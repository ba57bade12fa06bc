"""Oracle: the files that were written, opened again, beside the same question asked of the library."""

import json

import numpy as np
import pytest
from tiny_text import save_tiny_gru

from strobe import cli
from strobe.probes.cells import CellSearch, CellText, cell_text, search_cells

TEXT = "def area(radius):\n    return 3.14159 * radius ** 2\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_gru(tmp_path_factory.mktemp("models") / "tiny", TEXT * 3, 260)


def strobe(*arguments):
    return cli.main([str(a) for a in arguments])


def test_cells_writes_what_the_library_finds(tiny, tmp_path, capsys):
    from strobe.models import load_checkpoint

    out = tmp_path / "cells.json"
    asked = ("--files", 3, "--length", 64, "--top", 2, "--seed", 3)
    assert strobe("cells", tiny, *asked, "--show", "line_position", "--out", out) == 0
    kept = CellSearch.load(tmp_path / "cells.safetensors")
    expected = search_cells(load_checkpoint(tiny), n_files=3, length=64, top=2, seed=3)
    np.testing.assert_array_equal(kept.best, expected.best)
    np.testing.assert_array_equal(kept.held_out, expected.held_out)
    assert json.loads(out.read_text())["layout"]["title"]["text"] == "Every unit and the label line position"
    said = capsys.readouterr().out
    assert "6 units tried on each label" in said and "control: labels of another file" in said


def test_one_unit_along_a_text(tiny, tmp_path):
    from strobe.models import load_checkpoint

    out = tmp_path / "unit.json"
    assert strobe("cells", tiny, "--text", TEXT, "--unit", 0, "h", 4, "--out", out) == 0
    kept = CellText.load(tmp_path / "unit.safetensors")
    np.testing.assert_array_equal(kept.values, cell_text(load_checkpoint(tiny), TEXT, 0, "h", 4).values)
    assert json.loads(out.read_text())["layout"]["title"]["text"] == "block 0 h[4] after each token"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--text", TEXT), "without --unit"),
        (("--unit", 0, "h", 4), "without a text"),
        (("--gates",), "give --text"),
        (("--errors", "--text", TEXT), "leave it out"),
        (("--beside", "x", 0), "with --transitions LAYER"),
        (("--transitions", 1, "--text", TEXT), "no recurrent carry there; layers with one: 0"),
        (("--show", "colour"), "labels are in_string"),
        (("--text", TEXT, "--unit", "a", "h", 4), "whole numbers"),
        (("--text", TEXT, "--unit", 0, "c", 4), "block 0 h (0 to 5)"),
    ],
)
def test_what_makes_no_sense_is_said(tiny, tmp_path, capsys, options, said):
    assert strobe("cells", tiny, *options, "--out", tmp_path / "x.json") != 0
    assert said in capsys.readouterr().err


def test_gates_importance_and_errors_are_the_librarys(tiny, tmp_path):
    from strobe.models import load_checkpoint
    from strobe.probes.cells import ErrorTypes, GateSaturation, TokenImportance, gate_saturation, token_importance

    model, out = load_checkpoint(tiny), tmp_path / "view.csv"
    assert strobe("cells", tiny, "--gates", "--text", TEXT, "--seed", 2, "--out", out) == 0
    kept = GateSaturation.load(tmp_path / "view.safetensors")
    np.testing.assert_array_equal(kept.control_left, gate_saturation(model, TEXT, seed=2).control_left)
    assert strobe("cells", tiny, "--importance", 0, "--text", "x = 1\n", "--out", out) == 0
    kept = TokenImportance.load(tmp_path / "view.safetensors")
    np.testing.assert_array_equal(kept.kl, token_importance(model, "x = 1\n", 0).kl)
    assert strobe("cells", tiny, "--errors", "--files", 2, "--length", 24, "--out", out) == 0
    kept = ErrorTypes.load(tmp_path / "view.safetensors")
    assert kept.count[0] == 2 * 23 and kept.n_train == 500_000
