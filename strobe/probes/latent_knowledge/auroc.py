"""The area under the receiver operating characteristic, with weights and for many scores at once, and its interval.

The probability that a true item scores above a false one, ties counting half. scikit-learn has it for one score at a
time; a bootstrap of every probe, layer and context needs it some hundred thousand times.
"""

import numpy as np
from jaxtyping import Bool, Float


def auroc(
    scores: Float[np.ndarray, "*rest test item"], truth: Bool[np.ndarray, "test item"]
) -> Float[np.ndarray, "..."]:
    """AUROC [*rest, test] of `scores` for `truth`."""
    return weighted_auroc(scores, truth, np.ones((1, truth.shape[1])))[0]


def bootstrap_interval(
    scores: Float[np.ndarray, "*rest test item"],
    truth: Bool[np.ndarray, "test item"],
    n_bootstrap: int,
    seed: int,
    level: float = 0.95,
) -> Float[np.ndarray, "..."]:
    """Lower and upper percentile bounds [2, *rest, test], by bootstrap over items; one resampling serves all scores."""
    n = truth.shape[1]
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), n_bootstrap).astype(np.float64)
    return np.quantile(weighted_auroc(scores, truth, counts), [(1 - level) / 2, (1 + level) / 2], axis=0)


def weighted_auroc(
    scores: Float[np.ndarray, "*rest test item"],
    truth: Bool[np.ndarray, "test item"],
    counts: Float[np.ndarray, "draw item"],
) -> Float[np.ndarray, "..."]:
    """AUROC [draw, *rest, test] with each item counted as often as `counts` says. NaN where a draw lacks a kind."""
    flat = scores.reshape(-1, *truth.shape)
    found = np.empty((len(counts), *flat.shape[:2]))
    for i, j in np.ndindex(*flat.shape[:2]):
        found[:, i, j] = _one(flat[i, j], truth[j], counts)
    return found.reshape(len(counts), *scores.shape[:-1])


def _one(
    scores: Float[np.ndarray, " item"], truth: Bool[np.ndarray, " item"], counts: Float[np.ndarray, "draw item"]
) -> Float[np.ndarray, " draw"]:
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) > 0))
    true, false = (np.add.reduceat((counts * kind)[:, order], starts, axis=1) for kind in (truth, ~truth))
    below = np.cumsum(false, 1) - false / 2
    whole = true.sum(1) * false.sum(1)
    return (true * below).sum(1) / np.where(whole > 0, whole, np.nan)
