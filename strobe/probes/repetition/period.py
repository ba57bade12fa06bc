"""When a sequence has fallen into a loop: the shortest period of its end, and where that begins."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np


class Loop(NamedTuple):
    """From item `onset` on, each item equals the one `period` before it (from ``onset + period`` on)."""

    period: int
    onset: int


def tail_loop(items: Sequence[Hashable], *, min_copies: int = 3, min_items: int = 8) -> Loop | None:
    """The loop that `items` end in, or None. What counts as one is ours: at least `min_copies` copies of the unit, over
    at least `min_items` items, up to the last item. Raises ValueError for fewer than two copies.

    >>> tail_loop("xyz" + "ABC" * 4)
    Loop(period=3, onset=3)
    """
    if min_copies < 2:
        raise ValueError(f"a loop of {min_copies} copies was asked for; two are the fewest that repeat: give 2 or more")
    order: dict[Hashable, int] = {}
    ids = np.array([order.setdefault(item, len(order)) for item in items], dtype=np.int64)
    n = len(ids)
    for period in range(1, n // min_copies + 1):
        differs = np.flatnonzero(ids[period:] != ids[:-period])
        onset = int(differs[-1]) + 1 if len(differs) else 0
        # Of several, the first period is the smallest: its multiples come later.
        if n - onset >= max(min_copies * period, min_items):
            return Loop(period, onset)
    return None
