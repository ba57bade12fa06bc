"""Oracle: the list of rows that the GPU table has to have, and arithmetic by hand; every row is run here at a tiny size
on the CPU, so that it does not end with a slip on the day there is a GPU. Its figures here mean nothing."""

import sys
import zipfile
from pathlib import Path

import pytest
import torch

_FOLDER = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(_FOLDER)


def options(**changes):
    from gpu_rows.measuring import Options

    return Options(device="cpu", backend="chunked", times=(70,), turns=2, cache=1)._replace(**changes)


def checked(rows):
    from gpu_rows.measuring import HEAD, Row

    rows = list(rows)
    for row in rows:
        assert isinstance(row, Row), row
        assert row.slow > 0 and row.fast > 0 and row.turns == 2
        assert row.low <= row.high
        assert row.predicted > 0
        assert str(row).count("|") == HEAD.count("|")
    return [(row.subject, row.what) for row in rows]


LOOKS = [
    "capture every 256 / plain",
    "capture every 64 / plain",
    "capture at 100 / plain",
    "1 reader / plain",
    "8 readers / plain",
    "10 edits / plain",
]
TORCH = ["plain PyTorch / ours", "forward and backward, plain PyTorch / ours"]


def test_rows_of_the_chunk_kernel():
    from gpu_rows import matrix

    tiny = tuple(s._replace(heads=4, groups=2 if s.groups > 1 else 1, key=8, value=4) for s in matrix.SHAPES)
    found = checked(matrix.rows(options(), tiny))
    assert found == [(s.name, what) for s in matrix.SHAPES for what in [*TORCH, *LOOKS]]


def test_rows_against_flash_linear_attention():
    """With its two functions in the place of ours: what is handed to them is what they take."""
    from gpu_rows import carried, matrix

    from strobe.kernels import scan
    from strobe.kernels.decay import DECAY, DecaySignals
    from strobe.kernels.delta import DELTA, DeltaSignals

    def simple_gla(q, k, v, g, scale):
        assert scale == 1.0 and q.shape[2] == v.shape[2]
        return scan(DECAY, DecaySignals(q, k, v, g)).read, None

    def gated_delta_rule(q, k, v, g, beta, scale):
        assert scale == 1.0 and q.shape[2] == v.shape[2]
        return scan(DELTA, DeltaSignals(q, beta.unsqueeze(-1) * k, v, g, None, k)).read, None

    tiny = tuple(s._replace(heads=4, groups=2 if s.groups > 1 else 1, key=8, value=4) for s in matrix.SHAPES)
    for shape in tiny:
        signals = matrix.inputs(shape, 70, options(), torch.Generator().manual_seed(0))
        theirs = matrix.theirs(shape, (simple_gla, gated_delta_rule))(matrix.prepared(shape, signals))
        torch.testing.assert_close(theirs, scan(shape.family, signals).read, rtol=1e-4, atol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carried, "functions", lambda folder: (simple_gla, gated_delta_rule))
        found = checked(matrix.rows(options(), tiny[:1]))
    assert found[:2] == [("Mamba-2 130M", w) for w in ("fla / ours", "forward and backward, fla / ours")]


def test_rows_of_the_selective_scan():
    from gpu_rows import selective

    found = checked(selective.rows(options(), tuple(s._replace(channels=6, state=3) for s in selective.SHAPES)))
    assert found == [(s.name, what) for s in selective.SHAPES for what in [*TORCH, *LOOKS]]


def test_rows_of_the_cells():
    from gpu_rows import cells

    assert [s.name for s in cells.SHAPES] == [
        f"{cell}, d 768, heads of {dim}" for cell in ("lstm", "slstm") for dim in (64, 128)
    ]
    tiny = tuple(s._replace(hidden=6, heads=2) for s in cells.SHAPES[::2])
    found = checked(cells.rows(options(), tiny, batches=(1, 3), times=(9,)))
    for cell, other in (("lstm", "cuDNN with a dense R"), ("slstm", "step loop with W x outside")):
        whats = [what for subject, what in found if subject.startswith(f"{cell},")]
        sides = [f"{before}{x} / ours" for x in ("step loop", other) for before in ("", "forward and backward, ")]
        assert whats == 2 * [*sides, *LOOKS]


def test_rows_of_whole_models(monkeypatch):
    from gpu_rows import models

    sizes = {"vocab_size": 31, "hidden_size": 16, "state_size": 4}
    tiny = (
        models.SHAPES[0]._replace(options=sizes),
        models.SHAPES[1]._replace(options={**sizes, "num_heads": 4, "head_dim": 8, "n_groups": 1}),
    )
    found = checked(models.rows(options(), tiny, times=(33,)))
    assert found == [(s.name, what) for s in models.SHAPES for what in models.PREDICTED]
    monkeypatch.setattr(models, "find_spec", lambda name: name == "mamba_ssm" or None)
    (row,) = models.rows(options(), tiny[:1], times=(33,))
    assert "not measured: mamba_ssm can be imported" in str(row)


def test_floors_are_those_of_the_arithmetic():
    from gpu_rows import cells, matrix, selective

    o = options()
    # Mamba-2 130M: x, y, 24 heads of 64, q, k of 128 in 2 bytes, a decay in 4: 6,752 bytes; 2 products, 0.786 MFLOP.
    assert matrix.floor(matrix.SHAPES[0], 1000, o) == pytest.approx(1e6 * 6752 / 4.3e12)
    # Qwen3-Next: 3 products of 32 heads, 3.15 MFLOP, less time than q, k, b, v, y: 40,960 + 128 bytes.
    assert matrix.floor(matrix.SHAPES[2], 1, o) == pytest.approx(1e3 * (2 * 4096 + 16384 + 16384 + 128) / 4.3e12)
    # Mamba 130M: 24,576 exponentials take longer than 9,280 bytes.
    assert selective.floor(selective.SHAPES[0], 1, o) == pytest.approx(1e3 * 24576 / 3.7e12)
    # An LSTM is bound by its steps.
    assert cells.floor(cells.SHAPES[0], 64, 1000, o) == pytest.approx(0.5)


def test_a_reach_is_met_on_its_own_side():
    from gpu_rows.measuring import Reach, Row

    row = Row("a", 1, 2, "b", 3.0, 2.0, 1.4, 1.6, 5, 0.5, 1.0, Reach(1.5, True))
    assert "| ≥ 1.5x | yes | 25% |" in str(row)
    assert "| ≤ 1.1x | no |" in str(row._replace(reach=Reach(1.1, False)))


def test_what_does_not_fit_is_a_row_that_says_so():
    from gpu_rows.measuring import HEAD, measure

    def too_large(given):
        raise torch.cuda.OutOfMemoryError("no room")

    row = measure(options(), ("a", 1, 2, "b"), (too_large, too_large), [None, None], predicted=1.0)
    assert "not measured: out of memory" in str(row)
    assert str(row).count("|") == HEAD.count("|")


def test_what_is_asked_for_and_the_page_it_becomes():
    import gpu

    asked, given = gpu.parsed(["--only", "cells", "--times", "64", "--fla", "here", "--flops", "1e12"])
    assert (asked.only, given.times, given.fla, given.machine.flops) == (["cells"], (64,), "here", 1e12)
    text = gpu.page(["| a |"], "card", "abc123")
    assert "on one card, at commit abc123" in text and "| a |" in text
    assert set(gpu.SUBJECTS) == {"models", "selective", "cells", "matrix"}


def test_a_package_carried_as_wheels_is_unpacked_and_found(tmp_path, monkeypatch):
    from gpu_rows import carried

    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [n for n in sys.modules if n == "fla" or n.startswith("fla.")]:
        monkeypatch.delitem(sys.modules, name)
    with zipfile.ZipFile(tmp_path / "fla_core-0.6.0-py3-none-any.whl", "w") as wheel:
        for package in ("fla", "fla/ops", "fla/ops/simple_gla", "fla/ops/gated_delta_rule"):
            wheel.writestr(f"{package}/__init__.py", "chunk_simple_gla = chunk_gated_delta_rule = 7\n")
    try:
        assert carried.functions(str(tmp_path)) == (7, 7)
        assert Path(sys.modules["fla"].__file__).is_file()
    finally:
        for name in [n for n in sys.modules if n == "fla" or n.startswith("fla.")]:
            del sys.modules[name]
    with pytest.raises(FileNotFoundError, match="is no folder; give one with its wheels"):
        carried.functions(str(tmp_path / "elsewhere"))
