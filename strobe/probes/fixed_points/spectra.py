"""Eigenvalues of the Jacobian at carries: all of them, or of a large carry the leading ones by Arnoldi iteration."""

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigs
from torch import Tensor

from strobe.probes.fixed_points.classify import MARGINAL
from strobe.probes.fixed_points.krylov import operator, products
from strobe.probes.fixed_points.system import System

# How many leading eigenvalues are asked for first, and at most: they are doubled until one is inside the unit circle.
_LEADING, _MOST = 16, 128
_TOGETHER = 4_000_000


def eigenvalues(system: System, x: Tensor, dense_up_to: int = 512) -> Tensor:
    """Complex [n, k], largest magnitude first; k is the size of the carry, or above `dense_up_to` as many as it takes
    for one of each point to lie inside the unit circle. A row of NaN: the iteration did not converge. Shorter rows end
    in NaN.
    """
    size = system.size
    # Arnoldi's iteration is for a small part of a spectrum; a small one is had whole.
    whole = size <= max(dense_up_to, 2 * _LEADING)
    if not len(x):
        return torch.zeros(0, size if whole else _LEADING, dtype=torch.complex128)
    if whole:
        rows = max(1, _TOGETHER // size**2)
        found = torch.cat([torch.linalg.eigvals(system.jacobian(part)) for part in x.split(rows)])
        return found.gather(1, found.abs().argsort(dim=1, descending=True, stable=True))
    return pad([_leading(system, one) for one in x])


def pad(rows: list[Tensor]) -> Tensor:
    """Spectra of several lengths as one complex [n, k], with NaN at the end of the shorter ones."""
    k = max(len(r) for r in rows)
    return torch.stack([torch.cat([r, r.new_full((k - len(r),), complex("nan"))]) for r in rows])


def _leading(system: System, x: Tensor) -> Tensor:
    forward, _ = products(lambda x: system.step(x[None])[0], x)
    A, k = operator(system.size, forward), min(_LEADING, system.size - 2)
    start = np.random.default_rng(0).standard_normal(system.size)
    while True:
        try:
            found = eigs(A, k=k, which="LM", v0=start, return_eigenvectors=False)
        except ArpackNoConvergence:
            # Of those that did converge nobody knows which are missing between them.
            found = np.full(k, np.nan)
        except ArpackError:
            # A Jacobian of zeros has no Krylov space.
            found = np.full(k, np.nan if float(forward(torch.from_numpy(start)).abs().max()) > 0 else 0.0)
        found = found[np.argsort(-np.abs(found), kind="stable")]
        enough = np.isnan(found).any() or np.abs(found).min() < 1 - MARGINAL
        if enough or 2 * k > min(_MOST, system.size - 2):
            return torch.from_numpy(found.astype(np.complex128))
        k *= 2


def signs(spectrum: Tensor) -> Tensor:
    """Sign det(I - J) from eigenvalues [n, k] that hold every real one above 1: 1, -1, or 0 where one is 1 to rounding
    or where it cannot be told."""
    real = spectrum.imag == 0
    above = (real & (spectrum.real > 1 + MARGINAL)).sum(1)
    undecided = (real & ((spectrum.real - 1).abs() <= MARGINAL)).any(1) | spectrum.real.isnan().all(1)
    return torch.where(undecided, 0, 1 - 2 * (above % 2))
