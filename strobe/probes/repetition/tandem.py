"""Runs of a sequence repeated end to end (tandem repeats), by suffix array and longest common prefixes.

Dong et al. 2025 (ACL, long.48) look for a suffix that begins where its neighbour in the suffix array stops matching
(LCP[i] > 0 and Suf[i-1] = Suf[i] + LCP[i]), which sees a unit written exactly twice. Here every maximal run of any
number of copies is found, from the same two arrays: for each period, extensions to both sides of positions one period
apart (Main and Lorentz 1984; Kolpakov and Kucherov 1999).
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Run(NamedTuple):
    """Items [start, stop) in which each equals the one `period` before it, and that cannot be made longer."""

    start: int
    stop: int
    period: int

    @property
    def copies(self) -> int:
        """How many whole copies of the unit there are, 2 at least."""
        return (self.stop - self.start) // self.period


def suffix_array(items: Sequence[Hashable]) -> Int[np.ndarray, " n"]:
    """Where each suffix begins, the suffixes in lexicographic order (items ordered by first appearance).

    Prefix doubling (Manber and Myers 1993): O(n log^2 n).
    """
    order: dict[Hashable, int] = {}
    rank = np.array([order.setdefault(item, len(order)) for item in items], dtype=np.int64)
    n, width = len(rank), 1
    while True:
        behind = np.full(n, -1, dtype=np.int64)
        behind[: max(n - width, 0)] = rank[width:]
        suffixes = np.lexsort((behind, rank))
        differs = (np.diff(rank[suffixes]) != 0) | (np.diff(behind[suffixes]) != 0)
        new = np.zeros(n, dtype=np.int64)
        new[suffixes[1:]] = np.cumsum(differs)
        rank = new
        if n == 0 or rank.max() == n - 1:
            return suffixes
        width *= 2


def lcp_array(items: Sequence[Hashable], suffixes: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How many items each suffix has in common with the one before it in `suffixes` (0 for the first).

    Kasai et al. 2001: O(n).
    """
    n = len(items)
    rank = np.empty(n, dtype=np.int64)
    rank[suffixes] = np.arange(n)
    common, length = np.zeros(n, dtype=np.int64), 0
    for i in range(n):
        if rank[i] == 0:
            length = 0
            continue
        j = int(suffixes[rank[i] - 1])
        while i + length < n and j + length < n and items[i + length] == items[j + length]:
            length += 1
        common[rank[i]] = length
        length = max(length - 1, 0)
    return common


def tandem_repeats(items: Sequence[Hashable]) -> list[Run]:
    """Every maximal run of two or more copies, each with its smallest period, by start and then length.

    >>> tandem_repeats("ABCABCABC")
    [Run(start=0, stop=9, period=3)]
    """
    n = len(items)
    ahead, behind = _Extensions(items), _Extensions(items[::-1])
    found: dict[tuple[int, int], int] = {}
    for period in range(1, n // 2 + 1):
        for i in range(0, n - period, period):
            j = i + period
            stop = j + ahead.between(i, j)
            start = i - (behind.between(n - i, n - j) if i else 0)
            # A multiple of the period finds the same run again; the smallest came first.
            if stop - start >= 2 * period:
                found.setdefault((start, stop), period)
    return sorted(Run(start, stop, period) for (start, stop), period in found.items())


class _Extensions:
    """Length of the common prefix of any two suffixes in O(1): the smallest LCP between their ranks."""

    def __init__(self, items: Sequence[Hashable]) -> None:
        suffixes = suffix_array(items)
        self.n = len(items)
        self.rank = np.empty(self.n, dtype=np.int64)
        self.rank[suffixes] = np.arange(self.n)
        self.table = [lcp_array(items, suffixes)]
        while (width := 2 ** len(self.table)) <= self.n:
            last, half = self.table[-1], width // 2
            self.table.append(np.minimum(last[:-half], last[half:]))

    def between(self, i: int, j: int) -> int:
        if self.n in (i, j):
            return 0
        low, high = sorted((int(self.rank[i]), int(self.rank[j])))
        level = (high - low).bit_length() - 1
        row = self.table[level]
        return int(min(row[low + 1], row[high - 2**level + 1]))
