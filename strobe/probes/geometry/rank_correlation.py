"""Spearman's correlation with an interval that resamples whole sequences, and with a third quantity held fixed.

Tokens of one sequence are not independent, so the bootstrap draws sequences, not tokens. Resampling is done with
weights: a token drawn w times counts w times in the ranks, which is what Spearman's correlation of the resampled table
is, ties at their mean rank.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Correlation(NamedTuple):
    """`value` and the bounds of its 95 % bootstrap interval; NaN where an argument is constant or not finite."""

    value: float
    low: float
    high: float


def spearman(
    a: Float[np.ndarray, " token"],
    b: Float[np.ndarray, " token"],
    cluster: Int[np.ndarray, " token"],
    *,
    given: Float[np.ndarray, " token"] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> Correlation:
    """Rank correlation of `a` and `b` with a percentile interval over resampled clusters.

    With `given`, the partial rank correlation (r_ab - r_ag r_bg) / sqrt((1 - r_ag^2)(1 - r_bg^2)). Tokens where any of
    them is not finite are left out.
    """
    columns = [np.asarray(c, dtype=float) for c in (a, b, *([] if given is None else [given]))]
    finite = np.all([np.isfinite(c) for c in columns], axis=0)
    columns, cluster = [c[finite] for c in columns], cluster[finite]
    if finite.sum() < 3:
        return Correlation(np.nan, np.nan, np.nan)
    _, which = np.unique(cluster, return_inverse=True)
    n = int(which.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_bootstrap)
    weights = np.concatenate([np.ones((1, len(which))), drawn[:, which]]).astype(float)
    ranks = [_ranks(c, weights) for c in columns]
    r = _pearson(ranks[0], ranks[1], weights)
    if given is not None:
        ag, bg = _pearson(ranks[0], ranks[2], weights), _pearson(ranks[1], ranks[2], weights)
        with np.errstate(divide="ignore", invalid="ignore"):
            r = (r - ag * bg) / np.sqrt((1 - ag**2) * (1 - bg**2))
    resampled = r[1:][np.isfinite(r[1:])]
    if not np.isfinite(r[0]) or n < 2 or not len(resampled):
        return Correlation(float(r[0]), np.nan, np.nan)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Correlation(float(r[0]), float(low), float(high))


def _ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean rank of each value [draw, token] where value i occurs ``weights[draw, i]`` times."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    total = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(total, 1) - (total - 1) / 2)[:, group]


def _pearson(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    n = weights.sum(1, keepdims=True)
    a = a - (weights * a).sum(1, keepdims=True) / n
    b = b - (weights * b).sum(1, keepdims=True) / n
    norm = np.sqrt((weights * a**2).sum(1) * (weights * b**2).sum(1))
    # A constant column leaves rounding, not zero.
    constant = norm <= 1e-12 * weights.sum(1) ** 3
    return np.where(constant, np.nan, (weights * a * b).sum(1) / np.where(constant, 1.0, norm))
