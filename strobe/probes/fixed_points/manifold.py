"""`unstable_manifolds`: where a recurrence goes when it leaves a saddle, along each direction that grows.

A saddle of index 1 has a curve of two branches; which two attractors they join says what the saddle divides (Sussillo &
Barak 2013). Of a saddle of higher index only the curves tangent to its eigenvectors are drawn, a part of a surface.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Complex128, Float64, Int
from torch import nn

from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.probes.fixed_points.basin import check_same
from strobe.probes.fixed_points.classify import MARGINAL
from strobe.probes.fixed_points.probe import Tick, system_of
from strobe.probes.fixed_points.result import FixedPoints
from strobe.probes.fixed_points.rolling import NAMES, roll_out
from strobe.probes.fixed_points.system import System
from strobe.probes.partial import keeping

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# How far along the eigenvector a branch begins, relative to 1 + the largest entry of the saddle.
_START = 1e-5
# Saddles whose branches are followed together: between two of these lots a run can be cut short.
_LOT = 4


@dataclass(frozen=True)
class UnstableManifolds(Result):
    """Branches of the unstable manifolds of saddles.

    `saddles` [saddle, size], points `which` [saddle] of the `FixedPoints` given, with their `indices` [saddle];
    `attractors` [k, size], its points `which_attractors` [k]. For each branch: `of` [branch] the saddle, `eigenvalues`
    [branch] along which it leaves, `sides` [branch] +1 or -1, `ends` [branch] the attractor it comes to (or -1, -2, -3
    as in `Basins`), `paths` [branch, time, size]. `near` [branch]: whether that attractor is, of all, among the 2^index
    nearest to the saddle, the control: what geometry alone would say. Of a run that was cut short, the saddles that
    were reached.
    """

    system: str
    held: str
    saddles: Float64[np.ndarray, "saddle size"]
    which: Int[np.ndarray, " saddle"]
    indices: Int[np.ndarray, " saddle"]
    attractors: Float64[np.ndarray, "k size"]
    which_attractors: Int[np.ndarray, " k"]
    of: Int[np.ndarray, " branch"]
    eigenvalues: Complex128[np.ndarray, " branch"]
    sides: Int[np.ndarray, " branch"]
    ends: Int[np.ndarray, " branch"]
    near: np.ndarray
    paths: Float64[np.ndarray, "branch time size"]

    @property
    def partial(self) -> str:
        """How many of the saddles were reached, in words; empty where all were."""
        asked = self.provenance.settings.get("saddles", len(self.saddles))
        return "" if len(self.saddles) == asked else f"cut short after {len(self.saddles)} of {asked} saddles"

    @property
    def agreement(self) -> float:
        """The share of the branches that end at an attractor next to their saddle; NaN without a branch."""
        return float(self.near.mean()) if len(self.near) else float("nan")

    def joined(self) -> dict[int, set[int]]:
        """For each saddle (its number in the `FixedPoints`), the attractors (numbers there) its branches come to."""
        return {
            int(self.which[s]): {int(self.which_attractors[e]) for e in self.ends[self.of == s] if e >= 0}
            for s in range(len(self.saddles))
        }

    def figure(self, *, dimensions: int = 2, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The branches between the saddles and the stable points, along the points' main axes."""
        from strobe.probes.fixed_points import orbit_figures

        return orbit_figures.manifolds(self, dimensions, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per branch: its saddle, index, eigenvalue, side and end."""
        import pandas as pd

        return pd.DataFrame(
            {
                "saddle": self.which[self.of],
                "index": self.indices[self.of],
                "eigenvalue_real": np.real(self.eigenvalues),
                "eigenvalue_imag": np.imag(self.eigenvalues),
                "side": self.sides,
                "end": np.array(
                    [f"point {self.which_attractors[e]}" if e >= 0 else NAMES[int(e)] for e in self.ends], dtype=object
                ),
                "next_to_the_saddle": self.near,
            }
        )

    def summary(self) -> str:
        """How many branches come to an attractor, which of them to one next to the saddle, and the provenance."""
        arrived = int((self.ends >= 0).sum())
        lines = [
            f"unstable directions of {self.system}, {self.held}: {len(self.of)} branches of {len(self.saddles)} "
            "saddles",
            f"  {arrived} come to a stable point, {self.agreement:.0%} to one next to their saddle (control: of "
            f"{len(self.attractors)} stable points, the two nearest to a saddle of index 1, four of index 2, ...)",
            *([f"  {self.partial}"] if self.partial else []),
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


@torch.no_grad()
def unstable_manifolds(
    source: System | nn.Module,
    points: FixedPoints,
    *,
    held: Any = None,
    layer: int | None = None,
    highest: int = 1,
    steps: int = 400,
    progress: Tick | None = None,
    partial: Callable[[UnstableManifolds], None] | None = None,
) -> UnstableManifolds:
    """Follow every growing direction of the saddles of index 1 to `highest` (1: curves, whole) until `steps` are done.

    `source`: what `points` was found for, given as there. A complex pair counts once, along its real part. The branch
    of a negative eigenvalue changes sides at every step; every second carry of it is kept. Where `progress` raises,
    which is told of every four saddles, `partial` is given the branches of those that were reached, if any. Raises
    ValueError for points of another system, and for a carry whose whole spectrum is not known.
    """
    system = system_of(source, held, layer)
    check_same(system, points)
    if highest < 1 or steps < 1:
        raise ValueError(f"saddles up to index {highest} and {steps} steps were asked for; give 1 or more of each")
    if points.eigenvalues.shape[1] < points.points.shape[1]:
        raise ValueError(
            f"the points have {points.eigenvalues.shape[1]} leading eigenvalues of {points.points.shape[1]} and no "
            "eigenvectors; search with a higher dense_up_to"
        )
    chosen = (points.index >= 1) & (points.index <= highest) & np.array([k != "marginal" for k in points.kinds], bool)
    which, stable = np.nonzero(chosen)[0], np.nonzero(points.stable)[0]
    saddles, attractors = torch.from_numpy(points.points[which]), torch.from_numpy(points.points[stable])
    settings = {"held": system.held, "highest": highest, "steps": steps, "saddles": len(which), "dtype": "float64"}
    lots = [_follow(system, saddles[:0], attractors, points.index[:0], steps)]

    def result(done: int) -> UnstableManifolds:
        of, eigenvalues, sides, ends, near, paths = (torch.cat(parts) for parts in zip(*lots, strict=True))
        return UnstableManifolds(
            system=system.name,
            held=system.held,
            saddles=saddles[:done].numpy(),
            which=which[:done],
            indices=points.index[which[:done]],
            attractors=attractors.numpy(),
            which_attractors=stable,
            of=of.numpy(),
            eigenvalues=eigenvalues.numpy(),
            sides=sides.numpy(),
            ends=ends.numpy(),
            near=near.numpy(),
            paths=torch.where(paths.isfinite(), paths, torch.nan).numpy(),
            provenance=Provenance(
                model=system.model or system.name,
                weights_hash=system.weights_hash,
                settings=settings,
                control="the attractors nearest to each saddle, without running the map",
            ),
        )

    tick = keeping(progress, partial, lambda: result(first) if first else None)
    for first in range(0, len(which), _LOT):
        tick(first, len(which), f"leaving {len(which)} saddles")
        lot = slice(first, first + _LOT)
        of, *rest = _follow(system, saddles[lot], attractors, points.index[which[lot]], steps)
        lots.append((of + first, *rest))
    return result(len(which))


def _follow(
    system: System, saddles: torch.Tensor, attractors: torch.Tensor, indices: np.ndarray, steps: int
) -> tuple[torch.Tensor, ...]:
    """(saddle, eigenvalue, side, end, whether that is near: [branch] each, the path [branch, time, size])."""
    of, eigenvalues, sides, starts = _branches(system, saddles)
    twice = (eigenvalues.real < 0) & (eigenvalues.imag == 0)
    path = [starts]
    for _ in range(steps):
        after = system.step(path[-1])
        path.append(torch.where(twice[:, None], system.step(after), after))
    ends = roll_out(system, path[-1], attractors, steps=max(steps, 64)).label
    near = torch.from_numpy(_near(saddles, attractors, indices, of, ends))
    return of, eigenvalues, sides, ends, near, torch.stack(path, 1)


def _branches(system: System, saddles: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """(saddle [branch], eigenvalue [branch], side [branch], where to start [branch, size])."""
    of, found, sides, starts = [], [], [], []
    for s, x in enumerate(saddles):
        values, vectors = torch.linalg.eig(system.jacobian(x[None])[0])
        for j in torch.nonzero((values.abs() > 1 + MARGINAL) & (values.imag >= 0))[:, 0]:
            direction = vectors[:, j].real
            direction = direction / direction.norm() * _START * (1 + x.abs().max())
            for side in (1, -1):
                of.append(s)
                found.append(values[j])
                sides.append(side)
                starts.append(x + side * direction)
    if not of:
        empty = torch.zeros(0, dtype=torch.long)
        return empty, torch.zeros(0, dtype=torch.complex128), empty, saddles.new_zeros(0, system.size)
    return torch.tensor(of), torch.stack(found), torch.tensor(sides), torch.stack(starts)


def _near(
    saddles: torch.Tensor, attractors: torch.Tensor, indices: np.ndarray, of: torch.Tensor, ends: torch.Tensor
) -> np.ndarray:
    if not len(attractors) or not len(of):
        return np.zeros(len(of), dtype=bool)
    order = torch.cdist(saddles, attractors).argsort(1).argsort(1).numpy()
    rank = order[of.numpy(), ends.clamp_min(0).numpy()]
    return (ends.numpy() >= 0) & (rank < 2.0 ** indices[of.numpy()])
