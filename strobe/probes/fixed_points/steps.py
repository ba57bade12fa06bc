"""The steps of a batch that has its Jacobians: Newton's, chord steps with the same factor, and damped least squares.

LM solves (A^T A + mu |r| I) d = -A^T r; mu falls when a step descends and rises when it does not (regularisation
proportional to the residual keeps quadratic convergence onto continua of roots: Fan & Yuan 2005, "On the quadratic
convergence of the Levenberg-Marquardt method without nonsingularity").
"""

import torch
from torch import Tensor

from strobe.probes.fixed_points.outcome import BACKTRACK, MU_LEAST
from strobe.probes.fixed_points.system import Roots

# A chord step is as cheap as one residual; it is worth another try while it shrinks the residual this much.
_CHORD, _CHORDS = 1 / 3, 6


def newton(roots: Roots, y: Tensor, r: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(y [n, m] to go on from, r there, |r| [n]) by the first step of the line search that descends; as given where
    none does."""
    lu, pivots, info = torch.linalg.lu_factor_ex(A)
    direction = torch.linalg.lu_solve(lu, pivots, -r[:, :, None])[..., 0]
    before = r.norm(dim=-1)
    moved, after, size = y.clone(), r.clone(), before.clone()
    waiting = ((info == 0) & direction.isfinite().all(-1)).nonzero()[:, 0]
    full = torch.zeros_like(size, dtype=torch.bool)
    for t in BACKTRACK:
        if not len(waiting):
            break
        trial = y[waiting] + t * direction[waiting]
        r_new = roots.residual(trial)
        new = r_new.norm(dim=-1)
        ok = new < (1 - 0.1 * t) * before[waiting]
        taken = waiting[ok]
        moved[taken], after[taken], size[taken] = trial[ok], r_new[ok], new[ok]
        if t == 1.0:
            full[taken] = True
        waiting = waiting[~ok]
    _chord(roots, lu, pivots, (full & (size < _CHORD * before)).nonzero()[:, 0], moved, after, size)
    return moved, after, size


def _chord(roots: Roots, lu: Tensor, pivots: Tensor, rows: Tensor, y: Tensor, r: Tensor, size: Tensor) -> None:
    """Further steps of `rows` with the factor at hand, in place, while it shrinks their residual threefold."""
    for _ in range(_CHORDS):
        if not len(rows):
            return
        # Copying factors costs as much as solving with them: with most rows at work, all are solved.
        if 2 * len(rows) > len(y):
            step = torch.linalg.lu_solve(lu, pivots, -r[:, :, None])[rows, :, 0]
        else:
            step = torch.linalg.lu_solve(lu[rows], pivots[rows], -r[rows, :, None])[..., 0]
        trial = y[rows] + step
        r_new = roots.residual(trial)
        new = r_new.norm(dim=-1)
        ok = new < _CHORD * size[rows]
        rows = rows[ok]
        y[rows], r[rows], size[rows] = trial[ok], r_new[ok], new[ok]


def marquardt(roots: Roots, y: Tensor, r: Tensor, A: Tensor, mu: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y, r and |r| after one damped least-squares step of each candidate, where one descends; mu for the next one)."""
    normal, gradient, before = A.mT @ A, A.mT @ r[:, :, None], r.norm(dim=-1)
    eye = torch.eye(y.shape[1], dtype=y.dtype)
    moved, after, size, mu = y.clone(), r.clone(), before.clone(), mu.clone()
    waiting = torch.arange(len(y))
    # A few dampings for each Jacobian: finding the right one costs a solve, a new Jacobian costs more.
    for _ in range(4):
        damped = normal[waiting] + (mu[waiting] * before[waiting])[:, None, None] * eye
        step, info = torch.linalg.solve_ex(damped, -gradient[waiting])
        trial = y[waiting] + step[..., 0]
        r_new = roots.residual(trial)
        new = r_new.norm(dim=-1)
        ok = (new < before[waiting]) & (info == 0)
        taken = waiting[ok]
        moved[taken], after[taken], size[taken] = trial[ok], r_new[ok], new[ok]
        mu[taken] = (mu[taken] / 8).clamp_min(MU_LEAST)
        waiting = waiting[~ok]
        mu[waiting] = mu[waiting] * 6
        if not len(waiting):
            break
    return moved, after, size, mu
