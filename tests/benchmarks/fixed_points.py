"""The fixed-point finder on flip-flop networks: how many of the known points, how fast, from 1,024 and from 64 carries.

What is known of each network: the points that a search from 4,000 other carries finds, when a second one with another
seed finds no more. FixedPointFinder (Golub & Sussillo 2018), whose speed and reach this is to be compared with, is not
on PyPI and is not measured here.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from flip_flop_networks import NETWORKS, Network, network, visited

from strobe.probes.fixed_points import FixedPoints, fixed_points, from_module

_TURNS = 3


class Found(NamedTuple):
    """`true` of the known points, `false` others, the largest speed, and median CPU seconds."""

    true: int
    false: int
    speed: float
    seconds: float


def section(folder: Path | None = None, names: tuple[str, ...] = tuple(NETWORKS), turns: int = _TURNS) -> str:
    """A row for each network and number of carries. `folder` (or STROBE_BENCHMARK_NETWORKS) keeps the networks."""
    named = os.environ.get("STROBE_BENCHMARK_NETWORKS")
    with TemporaryDirectory() as scratch:
        home = folder or (Path(named) if named else Path(scratch))
        rows = [row for name in names for row in _rows(name, network(name, home), turns)]
    return "\n".join(
        [
            "## Fixed points",
            "",
            "3-bit flip-flop networks trained for this, initial carries that they visit with normal noise of 0.5;",
            "search, deduplication, Jacobians and eigenvalues, float64, speeds computed again at the points returned.",
            "",
            "| network | carries | found / known | false | largest speed | seconds |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "Not measured: FixedPointFinder, default and tuned, on the same networks; it is not on PyPI.",
        ]
    )


def _rows(name: str, made: Network, turns: int) -> list[str]:
    known = _known(made)
    rows = []
    for count in (1024, 64):
        start = visited(made, count)
        ours = _measured(lambda start=start: fixed_points(made.cell, start, control=None), known, turns)
        rows.append(
            f"| {name} (right {made.accuracy:.3f}) | {count:,} | {ours.true} / {len(known)} | {ours.false} | "
            f"{ours.speed:.1e} | {ours.seconds:.2f} |"
        )
    return rows


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


def _measured(search: Callable[[], FixedPoints], known: np.ndarray, turns: int) -> Found:
    seconds, result = [], None
    for _ in range(turns):
        begun = time.process_time()
        result = search()
        seconds.append(time.process_time() - begun)
    assert result is not None
    hit, other = compared(result.points, known)
    return Found(hit, other, float(result.speeds.max(initial=0)), median(seconds))


def compared(points: np.ndarray, known: np.ndarray, near: float = 1e-3) -> tuple[int, int]:
    """(how many of `known` are among `points`, how many of `points` are none of them), within `near`."""
    if not len(points):
        return 0, 0
    gap = np.linalg.norm(points[:, None] - known[None], axis=-1)
    return int((gap.min(0) < near).sum()), int((gap.min(1) >= near).sum())
