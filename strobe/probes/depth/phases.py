"""Phases of depth: the best division of the blocks into contiguous segments, exactly, by dynamic programming.

The cost of a segment is sum S_ii - (1/n) sum S_ij over its blocks: for similarities that are inner products, the
squares of the distances to the segment's mean (Fisher 1958's partition, in the kernel's space). Raptor
(arXiv:2512.19941) cuts by maximal cut, whose blocks its code does not keep contiguous; the cost here is ours.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class Phases(NamedTuple):
    """`starts`: the first block of each segment. `cost`: what is left within them. `share`: 1 - cost / cost of one
    segment; NaN where one segment has no cost."""

    starts: tuple[int, ...]
    cost: float
    share: float

    def assignment(self, n: int) -> tuple[int, ...]:
        """The segment of each of `n` blocks."""
        return tuple(int(i) for i in np.searchsorted(self.starts, np.arange(n), side="right") - 1)


def phases(similarity: Float[np.ndarray, "block block"], k: int, kinds: Sequence[int] | None = None) -> Phases:
    """The division of the blocks into `k` contiguous segments with the smallest cost; the earliest cuts among equals.

    `kinds`: a label for each block; blocks of different labels share no segment. Raises ValueError for a `k` that is
    not possible, or similarities that are not finite.

    >>> phases(np.kron(np.eye(2), np.ones((3, 3))), 2)
    Phases(starts=(0, 3), cost=0.0, share=1.0)
    """
    n = len(similarity)
    kinds = [0] * n if kinds is None else list(kinds)
    runs = 1 + sum(a != b for a, b in itertools.pairwise(kinds))
    if not runs <= k <= n:
        raise ValueError(
            f"{k} phases of {n} blocks were asked for; there can be {runs} to {n}"
            + (f", as neighbouring blocks are of {runs} kinds in turn" if runs > 1 else "")
        )
    if not np.isfinite(similarity).all():
        raise ValueError(
            "phases were asked for, and some similarities are not finite: a block that changes nothing has no "
            "direction; use the similarity of states"
        )
    cost = _costs(similarity, kinds)
    best = np.full((k + 1, n + 1), np.inf)
    best[0, 0] = 0.0
    cut = np.zeros((k + 1, n + 1), dtype=int)
    for segments in range(1, k + 1):
        for end in range(segments, n + 1):
            options = best[segments - 1, :end] + cost[:end, end]
            cut[segments, end] = int(np.argmin(options))
            best[segments, end] = options[cut[segments, end]]
    starts, end = [], n
    for segments in range(k, 0, -1):
        end = int(cut[segments, end])
        starts.append(end)
    whole, left = float(_costs(similarity, [0] * n)[0, n]), max(float(best[k, n]), 0.0)
    return Phases(tuple(starts[::-1]), left, 1 - left / whole if whole > 1e-12 * n else float("nan"))


def shuffled_shares(
    similarity: Float[np.ndarray, "block block"], k: int, n_orders: int = 200, seed: int = 0
) -> Float[np.ndarray, " order"]:
    """`share` of the best `k` phases when the blocks stand in a random order, `n_orders` times, sorted by size.

    What a division into segments explains where nothing is contiguous.
    """
    rng = np.random.default_rng(seed)
    orders = (rng.permutation(len(similarity)) for _ in range(n_orders))
    return np.sort([phases(similarity[np.ix_(order, order)], k).share for order in orders])


def _costs(similarity: np.ndarray, kinds: Sequence[int]) -> np.ndarray:
    """cost[a, b] of the segment a..b-1; infinite where it would mix kinds."""
    n = len(similarity)
    total = np.zeros((n + 1, n + 1))
    total[1:, 1:] = similarity.cumsum(0).cumsum(1)
    diagonal = np.concatenate([[0.0], np.diag(similarity).cumsum()])
    cost = np.full((n + 1, n + 1), np.inf)
    for a in range(n):
        for b in range(a + 1, n + 1):
            if kinds[b - 1] != kinds[a]:
                break
            inside = total[b, b] - total[a, b] - total[b, a] + total[a, a]
            cost[a, b] = diagonal[b] - diagonal[a] - inside / (b - a)
    return cost
