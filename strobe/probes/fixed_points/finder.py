"""Batched root finding: Newton with a line search, chord steps, and Levenberg-Marquardt where Newton does not descend.

Every candidate is its own problem; they share only the batched factorisation. What has converged, left or stalled
leaves the batch. Nothing here knows about recurrences: it solves the `Roots` of a system in float64.

    Newton     A d = -r, backtracking over d, d/2, d/5, d/20           A = dr/dy
    chord      the same factor of A again for the new r, while it shrinks the residual threefold
    LM         (A^T A + mu |r| I) d = -A^T r; mu falls when a step descends and rises when it does not
               (regularisation proportional to the residual keeps quadratic convergence onto continua of roots:
               Fan & Yuan 2005, "On the quadratic convergence of the Levenberg-Marquardt method without nonsingularity")
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from strobe.core.memory import refuse_if_too_large
from strobe.probes.fixed_points.krylov import solve_krylov
from strobe.probes.fixed_points.outcome import BACKTRACK, FLAT, MU_FIRST, MU_LEAST, MU_MOST, Limits, Outcome, Solved
from strobe.probes.fixed_points.system import Roots

__all__ = ["Limits", "Outcome", "Solved", "solve"]

# A chord step is as cheap as one residual; it is worth another try while it shrinks the residual this much.
_CHORD = 1 / 3
# Jacobian entries that are worked on together, and the fewest candidates: beyond this they leave a processor's cache.
_CACHED, _SMALLEST_CHUNK = 1_000_000, 32


@torch.no_grad()
def solve(roots: Roots, start: Float64[Tensor, "n m"], limits: Limits) -> Solved:
    """Search from each row of `start`; above ``limits.dense_up_to`` unknowns without Jacobians (`krylov`).

    Raises CaptureTooLarge if a chunk's Jacobians do not fit in memory.
    """
    m = start.shape[1]
    if m > limits.dense_up_to:
        return solve_krylov(roots, start, limits)
    # The Jacobian, its factor, the normal matrix and two temporaries.
    refuse_if_too_large(
        5 * 8 * m * m * min(limits.chunk, len(start)),
        f"solving {min(limits.chunk, len(start))} problems of {m} unknowns together",
        "give a smaller chunk, or a smaller dense_up_to, above which no Jacobian is formed",
    )
    together = min(limits.chunk, max(_SMALLEST_CHUNK, _CACHED // (m * m)))
    parts = [_solve_chunk(roots, chunk, limits) for chunk in start.split(together)]
    return Solved(*(torch.cat(list(column)) for column in zip(*parts, strict=True)))


def _solve_chunk(roots: Roots, start: Tensor, limits: Limits) -> Solved:
    y = start.clone()
    outcome = torch.zeros(len(y), dtype=torch.long)
    iterations = torch.zeros(len(y), dtype=torch.long)
    mu = torch.full((len(y),), MU_FIRST, dtype=y.dtype)
    for _ in range(limits.max_iterations + 1):
        active = (outcome == Outcome.SEARCHING).nonzero()[:, 0]
        if not len(active):
            break
        here = y[active]
        r, A = roots.linearise(here)
        gradient = (A.mT @ r[:, :, None])[..., 0]
        found = _judge(here, r, gradient, mu[active], limits)
        outcome[active] = found
        going = found == Outcome.SEARCHING
        if not bool(going.any()):
            continue
        if not bool(going.all()):
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


def _judge(y: Tensor, r: Tensor, gradient: Tensor, mu: Tensor, limits: Limits) -> Tensor:
    size, largest = r.norm(dim=-1), y.abs().amax(-1)
    # A^T r holds every entry of A and r, and a sum with one that is not finite is not finite.
    finite = size.isfinite() & gradient.isfinite().all(-1)
    escaped = ~finite | (largest > limits.reach)
    converged = size <= limits.tolerance * (1 + largest)
    stalled = (gradient.norm(dim=-1) <= FLAT * size) | (mu >= MU_MOST)
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
    for t in BACKTRACK:
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
        # Copying factors costs as much as solving with them: with most rows at work, all are solved.
        if 2 * len(rows) > len(who):
            step = torch.linalg.lu_solve(lu, pivots, -r_best[:, :, None])[rows, :, 0]
        else:
            step = torch.linalg.lu_solve(lu[rows], pivots[rows], -r_best[rows, :, None])[..., 0]
        trial = moved[rows] + step
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
        mu[taken] = (mu[taken] / 8).clamp_min(MU_LEAST)
        waiting = waiting[~ok]
        mu[waiting] = mu[waiting] * 6
        if not len(waiting):
            break
    return moved, mu
