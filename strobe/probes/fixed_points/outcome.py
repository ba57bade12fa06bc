"""What both root finders share: how a search ends, what it may cost, and the constants of their steps."""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from jaxtyping import Float64, Int
from torch import Tensor

BACKTRACK = (1.0, 0.5, 0.2, 0.05)
# Roots closer than this, relative to 1 + their largest entry, are one: far above the error of a converged root, far
# below the distance between roots that a Newton step can tell apart.
SAME = 1e-6
# Relative size of the gradient of |r|^2 / 2, |A^T r| / |r|, at which a candidate sits in a local minimum.
FLAT = 1e-7
MU_FIRST, MU_LEAST, MU_MOST = 1e-2, 1e-10, 1e15


class Outcome(IntEnum):
    """How the search of one candidate ended, before its point is looked at."""

    SEARCHING = 0
    CONVERGED = 1
    STALLED = 2
    ESCAPED = 3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`tolerance`: of |r|, relative to 1 + max |y|. `max_iterations`: linear systems a candidate may cost.
    `reach`: a candidate with an unknown larger than this has escaped. `chunk`: candidates solved together, at most.
    `dense_up_to`: unknowns up to which Jacobians are formed and factorised; above it nothing is but products."""

    tolerance: float = 1e-12
    max_iterations: int = 150
    reach: float = 1e6
    chunk: int = 256
    dense_up_to: int = 512

    def __post_init__(self) -> None:
        positive = self.reach > 0 and self.chunk >= 1 and self.dense_up_to >= 0
        if not (0 < self.tolerance < 1 and self.max_iterations >= 1 and positive):
            raise ValueError(
                f"limits {self} were given; the tolerance has to be between 0 and 1, the reach positive, "
                "max_iterations and chunk 1 or more, and dense_up_to 0 or more"
            )


class Solved(NamedTuple):
    """`y` [n, m] where each candidate ended, its `outcome` [n] (SEARCHING: the budget ended first), and `iterations`
    [n], how many linear systems it took."""

    y: Float64[Tensor, "n m"]
    outcome: Int[Tensor, " n"]
    iterations: Int[Tensor, " n"]
