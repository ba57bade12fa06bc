"""Roots already found, and steps towards them that need no factorisation of their own.

The simplified Newton map at a root y*, with the Jacobian A* there,

    y <- y - A*^-1 r(y)

has slope 0 at y*, so that near y* it converges as fast as Newton's method does (Ortega & Rheinboldt 1970, section 10.2)
for the price of a residual and a product: A*^-1 is the same for all candidates on their way to y*. Most candidates of a
search are on their way to a root that another one has found. A step is kept only where it halves the residual, and each
candidate goes on to the tolerance itself; nothing is taken for a root because a root is near.
"""

import torch
from torch import Tensor

from strobe.probes.fixed_points.merging import merge
from strobe.probes.fixed_points.outcome import SAME, Limits
from strobe.probes.fixed_points.system import Roots

# What a step has to leave of the residual at most, to be kept and for another one to be tried.
HALVES = 0.5
# Above this condition number of A* the root may be one of a line, which has no neighbourhood of its own.
_WORST_CONDITION = 1e8
# Inverses are kept for as many roots as have this many entries together, 128 MiB.
_KEPT = 16_000_000
_STEPS = 12


class Anchors:
    """Roots y [k, m] of one problem with the inverses [k, m, m] of its Jacobian there."""

    def __init__(self, unknowns: int) -> None:
        self.y = torch.zeros(0, unknowns, dtype=torch.float64)
        self.inverse = torch.zeros(0, unknowns, unknowns, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.y)

    def add(self, roots: Roots, converged: Tensor) -> None:
        """Keep those of the `converged` [n, m] that are new, are isolated roots, and fit."""
        y = merge(self.y, converged, SAME)[0][len(self) :]
        y = y[: max(_KEPT // max(y.shape[1], 1) ** 2 - len(self), 0)]
        if not len(y):
            return
        _, A = roots.linearise(y)
        inverse, info = torch.linalg.inv_ex(A)
        condition = torch.linalg.matrix_norm(A, float("inf")) * torch.linalg.matrix_norm(inverse, float("inf"))
        # A comparison with NaN is false, so that what could not be inverted is left out.
        good = (info == 0) & (condition <= _WORST_CONDITION)
        self.y, self.inverse = torch.cat([self.y, y[good]]), torch.cat([self.inverse, inverse[good]])

    def pull(self, roots: Roots, y: Tensor, r: Tensor, size: Tensor, limits: Limits) -> None:
        """Steps of each row of `y` towards the root nearest to it while they halve its residual `r`; all in place.

        `size` [n] is the norm of each row of `r`.
        """
        if not len(self) or not len(y):
            return
        near = torch.cdist(y, self.y).argmin(1)
        # In order of their roots, so that those of one root are one product.
        rows = near.argsort()
        for _ in range(_STEPS):
            rows = rows[size[rows] > limits.tolerance * (1 + y[rows].abs().amax(1))]
            if not len(rows):
                return
            trial = y[rows] - self._solved(near[rows], r[rows])
            r_new = roots.residual(trial)
            new = r_new.norm(dim=-1)
            better = new <= HALVES * size[rows]
            rows = rows[better]
            y[rows], r[rows], size[rows] = trial[better], r_new[better], new[better]

    def _solved(self, which: Tensor, r: Tensor) -> Tensor:
        """A*^-1 r of each row, for the roots `which` [n] in ascending order."""
        found, counts = which.unique_consecutive(return_counts=True)
        parts = zip(found.tolist(), r.split(counts.tolist()), strict=True)
        return torch.cat([part @ self.inverse[i].mT for i, part in parts])
