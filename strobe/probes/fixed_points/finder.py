"""Batched root finding: steps that need no factorisation, Newton with a line search, and Levenberg-Marquardt.

Every candidate is its own problem; they share the batched factorisation, and what is learned on the way: the first few
are solved before the others, which then need few factorisations or none. What has converged, left or stalled leaves the
batch. Nothing here knows about recurrences: it solves the `Roots` of a system in float64.

    map        y + r, while it shrinks the residual by two fifths         (r = G(y) - y: a step of the map itself)
    anchors    the factor of the nearest root found so far, while it halves the residual (`anchors`)
    Newton     A d = -r, backtracking over d, d/2, d/5, d/20              A = dr/dy
    chord      the same factor of A again for the new r, while it shrinks the residual threefold
    LM         (A^T A + mu |r| I) d = -A^T r (`steps`), again until a step halves the residual
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from strobe.core.memory import refuse_if_too_large
from strobe.probes.fixed_points.anchors import HALVES, Anchors
from strobe.probes.fixed_points.krylov import solve_krylov
from strobe.probes.fixed_points.outcome import FLAT, MU_FIRST, MU_MOST, Limits, Outcome, Solved
from strobe.probes.fixed_points.steps import marquardt, newton
from strobe.probes.fixed_points.system import Roots

__all__ = ["Limits", "Outcome", "Solved", "solve"]

# Jacobian entries that are worked on together, and the fewest candidates: beyond this they leave a processor's cache.
_CACHED, _SMALLEST_CHUNK = 1_000_000, 32
# Candidates solved before the others while no root is known.
_SCOUTS = 64
# Steps of the map before the first factorisation, at most, and what one has to leave of the residual to be kept.
_SLIDE, _SLIDES = 6, 0.6


@dataclass
class _Batch:
    """Where each candidate is: `y` and its residual `r` [n, m], its norm `size` [n], and how its search goes.

    `damped` [n]: its last step was a damped one that did not halve the residual, so that Newton's would fail again.
    """

    y: Tensor
    r: Tensor
    size: Tensor
    outcome: Int[Tensor, " n"]
    iterations: Int[Tensor, " n"]
    mu: Tensor
    damped: Tensor


@torch.no_grad()
def solve(roots: Roots, start: Float64[Tensor, "n m"], limits: Limits, anchors: Anchors | None = None) -> Solved:
    """Search from each row of `start`; above ``limits.dense_up_to`` unknowns without Jacobians (`krylov`).

    `anchors`: roots of the same problem that earlier searches found; those found here are added.
    Raises CaptureTooLarge if a chunk's Jacobians do not fit in memory.
    """
    n, m = start.shape
    if m > limits.dense_up_to:
        return solve_krylov(roots, start, limits)
    # The Jacobian, its factor, the normal matrix and two temporaries.
    refuse_if_too_large(
        5 * 8 * m * m * min(limits.chunk, n),
        f"solving {min(limits.chunk, n)} problems of {m} unknowns together",
        "give a smaller chunk, or a smaller dense_up_to, above which no Jacobian is formed",
    )
    anchors = Anchors(m) if anchors is None else anchors
    batch = _started(roots, start)
    scouts = 0 if len(anchors) else min(_SCOUTS, n)
    for rows in (torch.arange(scouts), torch.arange(scouts, n)):
        _work(roots, batch, rows, limits, anchors)
    return Solved(batch.y, batch.outcome, batch.iterations)


def _started(roots: Roots, start: Tensor) -> _Batch:
    """The batch after steps of the map, each kept where it shrinks the residual enough."""
    y, n = start.clone(), len(start)
    r = roots.residual(y)
    size, rows = r.norm(dim=-1), torch.arange(n)
    for _ in range(_SLIDE):
        trial = y[rows] + r[rows]
        r_new = roots.residual(trial)
        new = r_new.norm(dim=-1)
        better = new <= _SLIDES * size[rows]
        rows = rows[better]
        if not len(rows):
            break
        y[rows], r[rows], size[rows] = trial[better], r_new[better], new[better]
    none = torch.zeros(n, dtype=torch.long)
    mu = torch.full((n,), MU_FIRST, dtype=y.dtype)
    return _Batch(y, r, size, none, none.clone(), mu, torch.zeros(n, dtype=torch.bool))


def _work(roots: Roots, batch: _Batch, rows: Tensor, limits: Limits, anchors: Anchors) -> None:
    """Bring the candidates `rows` to their ends."""
    m = batch.y.shape[1]
    together = min(limits.chunk, max(_SMALLEST_CHUNK, _CACHED // (m * m)))
    while len(rows):
        free = rows[~batch.damped[rows]]
        y, r, size = batch.y[free], batch.r[free], batch.size[free]
        anchors.pull(roots, y, r, size, limits)
        batch.y[free], batch.r[free], batch.size[free] = y, r, size
        ended = _judge(batch.y[rows], batch.size[rows], limits)
        batch.outcome[rows] = ended
        anchors.add(roots, batch.y[rows[ended == Outcome.CONVERGED]])
        # What has used its budget stays as it is: still searching.
        rows = rows[(ended == Outcome.SEARCHING) & (batch.iterations[rows] < limits.max_iterations)]
        batch.iterations[rows] += 1
        for part in rows.split(together):
            _advance(roots, batch, part)
        rows = rows[batch.outcome[rows] == Outcome.SEARCHING]


def _judge(y: Tensor, size: Tensor, limits: Limits) -> Tensor:
    largest = y.abs().amax(-1)
    converged = size <= limits.tolerance * (1 + largest)
    outcome = torch.where(converged, int(Outcome.CONVERGED), int(Outcome.SEARCHING))
    return torch.where(~size.isfinite() | (largest > limits.reach), int(Outcome.ESCAPED), outcome)


def _advance(roots: Roots, batch: _Batch, rows: Tensor) -> None:
    """One linearisation of each of `rows`: a Newton step, or where that does not descend a damped one."""
    here = batch.y[rows]
    r, A = roots.linearise(here)
    y, r_new, size, before = here.clone(), r.clone(), r.norm(dim=-1), r.norm(dim=-1)
    free = (~batch.damped[rows]).nonzero()[:, 0]
    if len(free) == len(rows):
        y, r_new, size = newton(roots, here, r, A)
    elif len(free):
        y[free], r_new[free], size[free] = newton(roots, here[free], r[free], A[free])
    rest = (size >= before).nonzero()[:, 0]
    if len(rest):
        going = rest[_descends(batch, rows[rest], r[rest], A[rest])]
        y[going], r_new[going], size[going], batch.mu[rows[going]] = marquardt(
            roots, here[going], r[going], A[going], batch.mu[rows[going]]
        )
        batch.damped[rows[going]] = size[going] > HALVES * before[going]
    batch.y[rows], batch.r[rows], batch.size[rows] = y, r_new, size


def _descends(batch: _Batch, rows: Tensor, r: Tensor, A: Tensor) -> Tensor:
    """Which of `rows` [n] are not in a minimum of |r|; the outcome of the others is set."""
    gradient = (A.mT @ r[:, :, None])[..., 0]
    stalled = (gradient.norm(dim=-1) <= FLAT * r.norm(dim=-1)) | (batch.mu[rows] >= MU_MOST)
    outcome = torch.where(stalled, int(Outcome.STALLED), int(Outcome.SEARCHING))
    # A^T r holds every entry of A, and a sum with one that is not finite is not finite.
    outcome = torch.where(gradient.isfinite().all(-1), outcome, int(Outcome.ESCAPED))
    batch.outcome[rows] = outcome
    return outcome == Outcome.SEARCHING
