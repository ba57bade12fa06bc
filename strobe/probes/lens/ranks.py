"""Spearman's rank correlation, ties at their mean rank, without scipy."""

import numpy as np
from jaxtyping import Float


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Rank correlation of `a` and `b`; NaN where one of them is constant or there are fewer than two values.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 200.0, 300.0]))
    1.0
    """
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return float((x * y).sum()) / norm if norm > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
