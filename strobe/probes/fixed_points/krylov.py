"""Root finding without Jacobians, for carries too large to factorise: inexact Newton steps by SciPy's GMRES.

    Newton     GMRES on A d = -r to |A d + r| <= eta |r|, backtracking over d, d/2, d/5, d/20
               eta as Eisenstat & Walker 1996 (choice 2): small where the last step shrank the residual a lot
    LM         LSMR with damping, where Newton does not descend: min |A d + r|^2 + mu |r| |d|^2, as in `finder`

A is only ever multiplied, by automatic differentiation of the residual; memory is that of some forty
carries. One candidate after the other: at these sizes a single product keeps a processor busy.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, gmres, lsmr
from torch import Tensor

from strobe.core.memory import refuse_if_too_large
from strobe.probes.fixed_points.outcome import BACKTRACK, FLAT, MU_FIRST, MU_LEAST, MU_MOST, Limits, Outcome, Solved
from strobe.probes.fixed_points.system import Roots

_RESTART, _CYCLES, _LSMR_STEPS = 40, 5, 120


def solve_krylov(roots: Roots, start: Tensor, limits: Limits) -> Solved:
    """Search from each row of `start` [n, m]; see `finder.solve`. Raises CaptureTooLarge if the basis does not fit."""
    m = start.shape[1]
    refuse_if_too_large(
        3 * 8 * m * _RESTART, f"a Krylov basis of {_RESTART} vectors of {m} unknowns", "look at a part of the carry"
    )
    ended = [_one(roots, y, limits) for y in start]
    return Solved(
        torch.stack([y for y, _, _ in ended]),
        torch.tensor([int(outcome) for _, outcome, _ in ended]),
        torch.tensor([count for _, _, count in ended]),
    )


def _one(roots: Roots, y: Tensor, limits: Limits) -> tuple[Tensor, Outcome, int]:
    def residual(y: Tensor) -> Tensor:
        return roots.residual(y[None])[0]

    mu, eta, r = MU_FIRST, 0.1, residual(y)
    for count in range(limits.max_iterations + 1):
        forward, backward = products(residual, y)
        size, gradient = float(r.norm()), backward(r).norm()
        if not bool(gradient.isfinite() & r.isfinite().all()) or float(y.abs().max()) > limits.reach:
            return y, Outcome.ESCAPED, count
        if size <= limits.tolerance * (1 + float(y.abs().max())):
            return y, Outcome.CONVERGED, count
        if float(gradient) <= FLAT * size or mu >= MU_MOST:
            return y, Outcome.STALLED, count
        if count == limits.max_iterations:
            break
        moved, r_new = _newton(residual, y, r, forward, eta)
        if moved is None:
            moved, r_new, mu = _damped(residual, y, r, forward, backward, mu)
        eta = min(max(0.9 * (float(r_new.norm()) / size) ** 2, 1e-8), 0.1)
        y, r = moved, r_new
    return y, Outcome.SEARCHING, limits.max_iterations


def products(f: Callable[[Tensor], Tensor], y: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """(v -> A v, u -> A^T u) for the Jacobian A of `f` [m] -> [m] at `y`.

    A v is the transpose of the linear map u -> A^T u, so reverse mode gives both, without a second pass through `f`.
    """
    pull: Any = torch.func.vjp(f, y)[1]
    push: Any = torch.func.vjp(lambda u: pull(u)[0], torch.zeros_like(y))[1]
    return lambda v: push(v)[0].detach(), lambda u: pull(u)[0].detach()


def operator(
    size: int, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor] | None = None
) -> LinearOperator:
    """The products as SciPy takes them; float64."""

    def as_numpy(f: Callable[[Tensor], Tensor]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda v: f(torch.from_numpy(np.array(v, dtype=np.float64).reshape(size))).numpy()

    back = as_numpy(backward) if backward is not None else None
    make: Any = LinearOperator  # SciPy's own stub knows only the subclass's constructor.
    return make((size, size), matvec=as_numpy(forward), rmatvec=back, dtype=np.float64)


def _newton(
    residual: Callable[[Tensor], Tensor], y: Tensor, r: Tensor, forward: Callable[[Tensor], Tensor], eta: float
) -> tuple[Tensor | None, Tensor]:
    """(where to go on from, its residual), or (None, `r`) where no step of the line search descends."""
    found, _ = gmres(operator(len(y), forward), -r.numpy(), rtol=eta, restart=_RESTART, maxiter=_CYCLES)
    direction = torch.from_numpy(found)
    if not bool(direction.isfinite().all()):
        return None, r
    for t in BACKTRACK:
        trial = y + t * direction
        r_new = residual(trial)
        if float(r_new.norm()) < (1 - 0.1 * t) * float(r.norm()):
            return trial, r_new
    return None, r


def _damped(
    residual: Callable[[Tensor], Tensor],
    y: Tensor,
    r: Tensor,
    forward: Callable[[Tensor], Tensor],
    backward: Callable[[Tensor], Tensor],
    mu: float,
) -> tuple[Tensor, Tensor, float]:
    """One damped least-squares step where it descends: (y, its residual, mu for the next one)."""
    A = operator(len(y), forward, backward)
    for _ in range(4):
        step = lsmr(A, -r.numpy(), damp=float(mu * r.norm()) ** 0.5, maxiter=_LSMR_STEPS)[0]
        trial = y + torch.from_numpy(step)
        r_new = residual(trial)
        if float(r_new.norm()) < float(r.norm()):
            return trial, r_new, max(mu / 8, MU_LEAST)
        mu *= 6
    return y, r, mu
