"""Ratios measured side by side: both sides of a ratio run by turns in one process, on one thread.

CPU seconds of this process, not wall seconds: on one thread they are the same on a quiet machine and stay comparable
on a busy one. The ratio is of medians; the spread is that of the turn-by-turn ratios.
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple


class Ratio(NamedTuple):
    """`slow` and `fast` are median CPU seconds, `ratio` their quotient, `low` and `high` the quartiles turn by turn."""

    slow: float
    fast: float
    ratio: float
    low: float
    high: float


def compare(a: Callable[[], object], b: Callable[[], object], *, turns: int = 7, warm: int = 2) -> Ratio:
    """The time of `a` over that of `b`."""
    for _ in range(warm):
        a()
        b()
    pairs = [(_seconds(a), _seconds(b)) for _ in range(turns)]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    quotients = statistics.quantiles([x / y for x, y in pairs], n=4)
    return Ratio(slow, fast, slow / fast, quotients[0], quotients[2])


def _seconds(f: Callable[[], object]) -> float:
    start = time.process_time()
    f()
    return time.process_time() - start
