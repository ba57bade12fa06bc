"""Batched root finding: Newton with a line search, chord steps, and Levenberg-Marquardt where Newton does not descend.

Every candidate is its own problem; they share only the batched factorisation. What has converged, left or stalled
leaves the batch. Nothing here knows about recurrences: it solves the `Roots` of a system in float64.

    Newton     A d = -r, backtracking over d, d/2, d/5, d/20           A = dr/dy
    chord      the same factor of A again for the new r, while it shrinks the residual threefold
    LM         (A^T A + mu |r| I) d = -A^T r; mu falls when a step descends and rises when it does not
               (regularisation proportional to the residual keeps quadratic convergence onto continua of roots:
               Fan & Yuan 2005, "On the quadratic convergence of the Levenberg-Marquardt method without nonsingularity")
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from strobe.core.memory import refuse_if_too_large
from strobe.probes.fixed_points.system import Roots

_BACKTRACK = (1.0, 0.5, 0.2, 0.05)
# A chord step is as cheap as one residual; it is worth another try while it shrinks the residual this much.
_CHORD = 1 / 3
# Relative size of the gradient of |r|^2 / 2, |A^T r| / |r|, at which a candidate sits in a local minimum.
_FLAT = 1e-7
_MU_FIRST, _MU_LEAST, _MU_MOST = 1e-2, 1e-10, 1e15


class Outcome(IntEnum):
    """How the search of one candidate ended, before its point is looked at."""

    SEARCHING = 0
    CONVERGED = 1
    STALLED = 2
    ESCAPED = 3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`tolerance`: of |r|, relative to 1 + max |y|. `max_iterations`: factorisations a candidate may cost.
    `reach`: a candidate with an unknown larger than this has escaped. `chunk`: candidates solved together."""

    tolerance: float = 1e-12
    max_iterations: int = 150
    reach: float = 1e6
    chunk: int = 256

    def __post_init__(self) -> None:
        if not (0 < self.tolerance < 1 and self.max_iterations >= 1 and self.reach > 0 and self.chunk >= 1):
            raise ValueError(
                f"limits {self} were given; the tolerance has to be between 0 and 1, the reach positive, and "
                "max_iterations and chunk 1 or more"
            )


class Solved(NamedTuple):
    """`y` [n, m] where each candidate ended, its `outcome` [n] (SEARCHING: the budget ended first), and `iterations`
    [n], how many factorisations it took."""

    y: Float64[Tensor, "n m"]
    outcome: Int[Tensor, " n"]
    iterations: Int[Tensor, " n"]


@torch.no_grad()
def solve(roots: Roots, start: Float64[Tensor, "n m"], limits: Limits) -> Solved:
    """Search from each row of `start`. Raises CaptureTooLarge if a chunk's Jacobians do not fit in memory."""
    m = start.shape[1]
    # The Jacobian, its factor, the normal matrix and two temporaries.
    refuse_if_too_large(
        5 * 8 * m * m * min(limits.chunk, len(start)),
        f"solving {min(limits.chunk, len(start))} problems of {m} unknowns together",
        "give a smaller chunk, or look at a part of the carry",
    )
    parts = [_solve_chunk(roots, chunk, limits) for chunk in start.split(limits.chunk)]
    return Solved(*(torch.cat(list(column)) for column in zip(*parts, strict=True)))


def _solve_chunk(roots: Roots, start: Tensor, limits: Limits) -> Solved:
    y = start.clone()
    outcome = torch.zeros(len(y), dtype=torch.long)
    iterations = torch.zeros(len(y), dtype=torch.long)
    mu = torch.full((len(y),), _MU_FIRST, dtype=y.dtype)
    for _ in range(limits.max_iterations + 1):
        active = (outcome == Outcome.SEARCHING).nonzero()[:, 0]
        if not len(active):
            break
        here = y[active]
        r, A = roots.linearise(here)
        gradient = (A.mT @ r[:, :, None])[..., 0]
        found = _judge(here, r, A, gradient, mu[active], limits)
        outcome[active] = found
        going = found == Outcome.SEARCHING
        if not bool(going.any()):
            continue
        active, here, r, A, gradient = active[going], here[going], r[going], A[going], gradient[going]
        # The last round only judges: what is still searching has used its budget.
        if int(iterations[active].max()) >= limits.max_iterations:
            break
        iterations[active] += 1
        moved, descended = _newton(roots, here, r, A)
        if not bool(descended.all()):
            rest = ~descended
            moved[rest], mu[active[rest]] = _marquardt(
                roots, here[rest], r[rest], A[rest], gradient[rest], mu[active[rest]]
            )
        y[active] = moved
    return Solved(y, outcome, iterations)


def _judge(y: Tensor, r: Tensor, A: Tensor, gradient: Tensor, mu: Tensor, limits: Limits) -> Tensor:
    size, largest = r.norm(dim=-1), y.abs().amax(-1)
    finite = size.isfinite() & gradient.isfinite().all(-1) & A.isfinite().flatten(1).all(1)
    escaped = ~finite | (largest > limits.reach)
    converged = size <= limits.tolerance * (1 + largest)
    stalled = (gradient.norm(dim=-1) <= _FLAT * size) | (mu >= _MU_MOST)
    outcome = torch.where(stalled, int(Outcome.STALLED), int(Outcome.SEARCHING))
    outcome = torch.where(converged, int(Outcome.CONVERGED), outcome)
    return torch.where(escaped, int(Outcome.ESCAPED), outcome)


def _newton(roots: Roots, y: Tensor, r: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """(where to go on from, whether the residual shrank), by the first step of the line search that descends."""
    lu, pivots, info = torch.linalg.lu_factor_ex(A)
    direction = torch.linalg.lu_solve(lu, pivots, -r[:, :, None])[..., 0]
    size = r.norm(dim=-1)
    usable = (info == 0) & direction.isfinite().all(-1)
    moved, best, r_best = y.clone(), size.clone(), r.clone()
    waiting = usable.nonzero()[:, 0]
    full = torch.zeros_like(usable)
    for t in _BACKTRACK:
        if not len(waiting):
            break
        trial = y[waiting] + t * direction[waiting]
        r_new = roots.residual(trial)
        new = r_new.norm(dim=-1)
        ok = new < (1 - 0.1 * t) * size[waiting]
        taken = waiting[ok]
        moved[taken], best[taken], r_best[taken] = trial[ok], new[ok], r_new[ok]
        if t == 1.0:
            full[taken] = True
        waiting = waiting[~ok]
    _chord(roots, lu, pivots, full & (best < _CHORD * size), moved, best, r_best)
    return moved, best < size


def _chord(
    roots: Roots, lu: Tensor, pivots: Tensor, who: Tensor, moved: Tensor, best: Tensor, r_best: Tensor, steps: int = 6
) -> None:
    """Further steps with the factor at hand, in place, for those whose residual it still shrinks threefold."""
    for _ in range(steps):
        rows = who.nonzero()[:, 0]
        if not len(rows):
            return
        trial = moved[rows] + torch.linalg.lu_solve(lu[rows], pivots[rows], -r_best[rows, :, None])[..., 0]
        r_new = roots.residual(trial)
        new = r_new.norm(dim=-1)
        ok = new < _CHORD * best[rows]
        taken = rows[ok]
        moved[taken], best[taken], r_best[taken] = trial[ok], new[ok], r_new[ok]
        who[rows[~ok]] = False


def _marquardt(roots: Roots, y: Tensor, r: Tensor, A: Tensor, gradient: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    """One damped least-squares step of each candidate, taken where it descends; (y, mu for the next one)."""
    normal, size = A.mT @ A, r.norm(dim=-1)
    eye = torch.eye(y.shape[1], dtype=y.dtype)
    moved, mu = y.clone(), mu.clone()
    waiting = torch.arange(len(y))
    # A few dampings for each Jacobian: finding the right one costs a solve, a new Jacobian costs more.
    for _ in range(4):
        damped = normal[waiting] + (mu * size)[waiting, None, None] * eye
        step, info = torch.linalg.solve_ex(damped, -gradient[waiting, :, None])
        trial = y[waiting] + step[..., 0]
        new = roots.residual(trial).norm(dim=-1)
        ok = (new < size[waiting]) & (info == 0)
        taken = waiting[ok]
        moved[taken] = trial[ok]
        mu[taken] = (mu[taken] / 8).clamp_min(_MU_LEAST)
        waiting = waiting[~ok]
        mu[waiting] = mu[waiting] * 6
        if not len(waiting):
            break
    return moved, mu
