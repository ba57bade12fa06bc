"""The fixed-point finder beside FixedPointFinder on flip-flop networks: how many of the known points, false ones, time.

FixedPointFinder (Golub & Sussillo 2018, https://doi.org/10.21105/joss.01003) is not on PyPI: name the folder with its
FixedPointFinderTorch.py in STROBE_FIXED_POINT_FINDER. What is known of each network: the points that a search of ours
from 4,000 other carries finds, when a second one with another seed finds no more; and, against our own blind spots, a
search of ours from every point that FixedPointFinder returned has to find none besides them.
"""

import inspect
import io
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from flip_flop_networks import NETWORKS, Network, network, visited
from torch import Tensor, nn

from strobe.probes.fixed_points import fixed_points, from_module

_TURNS = 3
# Its default, 1, throws gated carries far out; these are the best of the few tried on other networks than these.
_TUNED, _TUNED_FOR = 0.1, {"GRU 128": 0.01}
_Q = 1e-12
_Search = Callable[[], np.ndarray]


class Found(NamedTuple):
    """Of the points returned: known ones at q <= 1e-12, at speed <= 1e-12; others, and those at q <= 1e-12; seconds."""

    returned: int
    true: int
    strict: int
    false: int
    convincing: int
    seconds: float


def section(folder: Path | None = None, names: tuple[str, ...] = tuple(NETWORKS), turns: int = _TURNS) -> str:
    """Three rows for each network and number of carries. `folder` (or STROBE_BENCHMARK_NETWORKS) keeps the networks."""
    named = os.environ.get("STROBE_BENCHMARK_NETWORKS")
    with TemporaryDirectory() as scratch:
        home = folder or (Path(named) if named else Path(scratch))
        return page([row for name in names for row in rows(name, network(name, home), turns)])


def page(measured: list[str]) -> str:
    """The section around the rows `measured`."""
    return "\n".join(
        [
            "## Fixed points",
            "",
            "3-bit flip-flop networks trained for this, initial carries that they visit with normal noise of 0.5, the",
            "same for each finder; search, deduplication, Jacobians and eigenvalues. q = |F(x) - x|^2 / 2 is what",
            "FixedPointFinder minimises and stops at, speed = |F(x) - x|; both computed again in float64 at the points",
            "returned. False: returned, but within 1e-3 of no known point; in brackets those of them with q <= 1e-12.",
            "CPU seconds on one thread.",
            "",
            "| network | carries | finder | known found, q <= 1e-12 | speed <= 1e-12 | false | seconds | of ours |",
            "|---|---|---|---|---|---|---|---|",
            *measured,
            "",
            _settings(),
        ]
    )


def rows(name: str, made: Network, turns: int = _TURNS) -> list[str]:
    """What each finder found from 1,024 and from 64 carries. Raises RuntimeError where what is known is not settled."""
    known, finder = _known(made), _finder()
    rate = _TUNED_FOR.get(name, _TUNED)
    made_rows = []
    for count in (1024, 64):
        start = visited(made, count)
        ours, _ = _measured(lambda start=start: fixed_points(made.cell, start, control=None).points, made, known, turns)
        for label, options in (("default", {}), (f"lr {rate}", {"lr_init": rate})):
            theirs = None
            if finder is not None:
                search = _reference(finder, made, start, options)
                theirs, points = _measured(search, made, known, 1)
                _settled(made, points, known)
            made_rows.append(_row(name, made, count, f"FixedPointFinder, {label}", theirs, len(known), ours))
        made_rows.append(_row(name, made, count, "strobe", ours, len(known), ours))
    return made_rows


def _row(name: str, made: Network, count: int, finder: str, found: Found | None, n_known: int, ours: Found) -> str:
    start = f"| {name} (right {made.accuracy:.3f}) | {count:,} | {finder} |"
    if found is None:
        return f"{start} not measured | not measured | not measured | not measured | not measured |"
    return (
        f"{start} {found.true} of {n_known} | {found.strict} | {found.false:,} ({found.convincing}) | "
        f"{found.seconds:.2f} | {found.seconds / ours.seconds:.1f}x |"
    )


def _settings() -> str:
    finder = _finder()
    if finder is None:
        return "FixedPointFinder: not measured; STROBE_FIXED_POINT_FINDER names no folder with its source."
    base, own = finder.default_hps(), inspect.signature(finder.__init__).parameters
    names = ("tol_q", "tol_dq", "max_iters", "method", "tol_unique", "outlier_distance_scale", "dtype")
    settings = ", ".join([f"lr_init {own['lr_init'].default}", *(f"{name} {base[name]}" for name in names)])
    other = ", ".join(f"{rate} for {name}" for name, rate in _TUNED_FOR.items())
    # Who has a copy of a part only, or a mended one, says so in a file beside it, and the table does too.
    about = Path(os.environ["STROBE_FIXED_POINT_FINDER"]) / "ABOUT"
    note = f" Its source: {about.read_text().strip()}" if about.is_file() else ""
    return (
        f"FixedPointFinder's default: {settings}. Tuned: the same with lr_init {_TUNED} ({other}). It was measured "
        f"once, strobe by the median of {_TURNS} (default settings, float64). It gets an LSTM as one carry [h, c]."
        f"{note}"
    )


def _finder() -> Any:
    """The class FixedPointFinderTorch, or None where no folder is named. Raises FileNotFoundError for a wrong one."""
    named = os.environ.get("STROBE_FIXED_POINT_FINDER")
    if not named:
        return None
    if not (Path(named) / "FixedPointFinderTorch.py").is_file():
        raise FileNotFoundError(
            f"STROBE_FIXED_POINT_FINDER names {named}, and there is no FixedPointFinderTorch.py in it; name the folder "
            "of a checkout of mattgolub/fixed-point-finder, or leave the variable unset"
        )
    if named not in sys.path:
        sys.path.append(named)
    return import_module("FixedPointFinderTorch").FixedPointFinderTorch


class _Joined(nn.Module):
    """An LSTM whose carry is one tensor [1, batch, 2 d]: FixedPointFinder knows no other."""

    batch_first = True

    def __init__(self, cell: nn.RNNBase) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, inputs: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        h, c = (part.contiguous() for part in carry.chunk(2, -1))
        output, after = self.cell(inputs, (h, c))
        return output, torch.cat(after, -1)


def _reference(finder: Any, made: Network, start: Tensor, options: dict[str, float]) -> _Search:
    """A search by FixedPointFinder, of a copy: it freezes the parameters and overwrites the carries it is given."""
    cell = deepcopy(made.cell)
    rnn = _Joined(cell) if isinstance(cell, nn.LSTM) else cell

    def search(carries: Tensor = start, **more: int) -> np.ndarray:
        with redirect_stdout(io.StringIO()):
            found = finder(rnn, verbose=False, **options, **more)
            unique, _ = found.find_fixed_points(carries.numpy().copy(), np.zeros((1, cell.input_size), np.float32))
        return unique.xstar.astype(np.float64)

    # torch imports a second's worth on the first use of an optimizer, which is not the finder's time
    search(start[:8], max_iters=2)
    return search


def _known(made: Network) -> np.ndarray:
    """The points of two large searches, checked against each other. Raises RuntimeError where they do not agree."""
    system = from_module(made.cell)
    first, second = (fixed_points(system, n_initial=4000, control=None, seed=seed) for seed in (11, 12))
    if len(first.points) != len(second.points) or first.index_sum != 1 or second.index_sum != 1:
        raise RuntimeError(
            f"{len(first.points)} and {len(second.points)} points were found by two large searches, index sums "
            f"{first.index_sum} and {second.index_sum}; what is known of this network is not settled"
        )
    return first.points


def _settled(made: Network, points: np.ndarray, known: np.ndarray) -> None:
    if not len(points):
        return
    more = compared(fixed_points(made.cell, points, rounds=0, control=None).points, known)[1]
    if more:
        raise RuntimeError(
            f"{len(known)} points were known; a search from what FixedPointFinder returned found {more} more; what is "
            "known of this network is not settled"
        )


def _measured(search: _Search, made: Network, known: np.ndarray, turns: int) -> tuple[Found, np.ndarray]:
    seconds, points = [], np.empty((0, known.shape[1]))
    for _ in range(turns):
        begun = time.process_time()
        points = search()
        seconds.append(time.process_time() - begun)
    with torch.no_grad():
        speeds = from_module(made.cell).speed(torch.from_numpy(points)).numpy()
    good = speeds**2 / 2 <= _Q
    true, false = compared(points[good], known)[0], compared(points, known)[1]
    strict, convincing = compared(points[speeds <= 1e-12], known)[0], compared(points[good], known)[1]
    return Found(len(points), true, strict, false, convincing, median(seconds)), points


def compared(points: np.ndarray, known: np.ndarray, near: float = 1e-3) -> tuple[int, int]:
    """(how many of `known` are among `points`, how many of `points` are none of them), within `near`."""
    if not len(points):
        return 0, 0
    gap = np.linalg.norm(points[:, None] - known[None], axis=-1)
    return int((gap.min(0) < near).sum()), int((gap.min(1) >= near).sum())
