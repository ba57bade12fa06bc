"""Were all fixed points found? What can speak against it. Nothing here can prove it.

index sum        a map that sends a ball into itself has sum over fixed points of sign det(I - J) = 1 (Lefschetz;
                 Hopf for vector fields). Another sum means that points are missing. 1 does not mean that none is: a
                 pair of opposite sign may be.
singleton mass   the share of seeds that found a point no other seed found estimates the chance that the next seed
                 finds a new one (Good 1953, after Turing).
curve            how many points a subset of the seeds would have found on average (Hurlbert 1971, rarefaction).
"""

from math import lgamma

import numpy as np
from jaxtyping import Float64, Int


def index_sum(signs: Int[np.ndarray, " n"]) -> int:
    """Sum of sign det(I - J) over the fixed points."""
    return int(signs.sum())


def singleton_mass(hits: Int[np.ndarray, " n"]) -> float:
    """`hits`: how many seeds ended at each point. The share of them that is alone; NaN without a seed that ended."""
    total = int(hits.sum())
    return float((hits == 1).sum() / total) if total else float("nan")


def discovery_curve(
    hits: Int[np.ndarray, " n"], points: int = 24
) -> tuple[Int[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """(numbers of seeds, mean number of points that so many of the seeds would have found).

    With n_i seeds at point i of N in all, m of them drawn without replacement find sum_i 1 - C(N - n_i, m) / C(N, m).
    """
    total = int(hits.sum())
    if total == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    draws = np.unique(np.geomspace(1, total, points).round().astype(np.int64))
    found = [sum(1 - _missed(total, int(n), int(m)) for n in hits if n > 0) for m in draws]
    return draws, np.array(found, dtype=np.float64)


def _missed(total: int, hits: int, draws: int) -> float:
    """C(total - hits, draws) / C(total, draws): the chance that no draw is one of `hits`."""
    if draws > total - hits:
        return 0.0
    log = lgamma(total - hits + 1) + lgamma(total - draws + 1) - lgamma(total - hits - draws + 1) - lgamma(total + 1)
    return float(np.exp(log))


def verdict(index: int | None, singletons: float, n_marginal: int, n_failed: int) -> str:
    """What the checks say, in one sentence: "falsified" or "not falsified", never "complete"."""
    if index is not None and index != 1:
        return f"falsified: the index sum is {index} and has to be 1, so points are missing; give more initial carries"
    checks = []
    if index == 1:
        checks.append("the index sum is 1")
    elif n_marginal:
        checks.append(f"{n_marginal} marginal points, so there is no index sum")
    else:
        checks.append("no box is known that the map sends into itself, so there is no index sum")
    if np.isfinite(singletons):
        checks.append(f"a further initial carry would find a new point with chance about {singletons:.2g}")
    if n_failed:
        checks.append(f"{n_failed} initial carries did not end anywhere")
    return "not falsified: " + "; ".join(checks)
