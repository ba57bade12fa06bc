"""`basins`: which attractor each carry comes to when the map is run, beside the nearest attractor, its control."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import nn

from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.probes.fixed_points.candidates import random_carries
from strobe.probes.fixed_points.probe import Tick, system_of
from strobe.probes.fixed_points.result import FixedPoints
from strobe.probes.fixed_points.rolling import NAMES, roll_out
from strobe.probes.fixed_points.system import System, as_carries
from strobe.probes.partial import keeping

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# Carries run together: between two of these lots a run can be cut short.
_LOT = 256


@dataclass(frozen=True)
class Basins(Result):
    """Where carries end.

    `attractors` [k, size]: the stable points, which are points `which` [k] of the `FixedPoints` given. `starts`
    [n, size]; `labels` [n]: the attractor each start comes to, or -1 on a cycle of up to 64 steps, -2 not at rest, -3
    escaped; `steps` [n]: after how many steps it is within 1e-4 of the attractor for good, -1 for those at none.
    `nearest` [n]: the attractor nearest to each start, the control: what geometry alone would say. Of a run that was
    cut short, the carries that were run.
    """

    system: str
    held: str
    attractors: Float64[np.ndarray, "k size"]
    which: Int[np.ndarray, " k"]
    starts: Float64[np.ndarray, "n size"]
    labels: Int[np.ndarray, " n"]
    steps: Int[np.ndarray, " n"]
    nearest: Int[np.ndarray, " n"]

    @property
    def partial(self) -> str:
        """How many of the carries were run, in words; empty where all were."""
        asked = self.provenance.settings.get("initial", len(self.starts))
        return "" if len(self.starts) == asked else f"cut short after {len(self.starts)} of {asked} carries"

    @property
    def shares(self) -> Float64[np.ndarray, " k"]:
        """The share of the starts that comes to each attractor."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.attractors)) / len(self.labels)

    @property
    def shares_nearest(self) -> Float64[np.ndarray, " k"]:
        """The share of the starts to which each attractor is the nearest."""
        return np.bincount(self.nearest[self.nearest >= 0], minlength=len(self.attractors)) / len(self.labels)

    @property
    def agreement(self) -> float:
        """The share of the starts that end at the attractor nearest to them."""
        return float((self.labels == self.nearest).mean())

    def end_names(self, label: int) -> str:
        """`label` in words."""
        return f"point {self.which[label]}" if label >= 0 else NAMES[label]

    def figure(self, *, dimensions: int = 2, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Every start along the attractors' main axes, coloured by where it ends."""
        from strobe.probes.fixed_points import orbit_figures

        return orbit_figures.basins(self, dimensions, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per end: its share with the standard error of a draw, the control's share, and the median steps."""
        import pandas as pd

        ends = [*range(len(self.attractors)), *(e for e in NAMES if (self.labels == e).any())]
        share = np.array([(self.labels == e).mean() for e in ends])
        took = [
            np.median(self.steps[self.labels == e]) if (self.labels == e).any() and e >= 0 else np.nan for e in ends
        ]
        return pd.DataFrame(
            {
                "end": np.array([self.end_names(e) for e in ends], dtype=object),
                "share": share,
                "standard_error": np.sqrt(share * (1 - share) / len(self.labels)),
                "share_nearest": [float((self.nearest == e).mean()) for e in ends],
                "median_steps": took,
            }
        )

    def summary(self) -> str:
        """Shares, agreement with the nearest attractor, and the provenance."""
        rows = self.to_frame()
        said = ", ".join(
            f"{e} {s:.1%} ± {d:.1%}" for e, s, d in zip(rows.end, rows.share, rows.standard_error, strict=True)
        )
        lines = [
            f"basins of {self.system}, {self.held}, from {len(self.starts)} carries: {said}",
            f"  {self.agreement:.1%} end at the attractor nearest to them (control)",
            *([f"  {self.partial}"] if self.partial else []),
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


@torch.no_grad()
def basins(
    source: System | nn.Module,
    points: FixedPoints,
    initial: Any = None,
    *,
    held: Any = None,
    layer: int | None = None,
    n_initial: int = 2048,
    steps: int = 1000,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[Basins], None] | None = None,
) -> Basins:
    """Run carries of `source` (what `points` was found for, given as there): to which stable point does each come?

    `initial` [n, size]: the carries; `n_initial` random ones if None, drawn as the search draws them, so that a share
    is one of that draw. Where `progress` raises, which is told of every 256 of them, `partial` is given the result
    over those that were run, if any. Raises ValueError for points of another system.
    """
    system = system_of(source, held, layer)
    check_same(system, points)
    if steps < 1:
        raise ValueError(f"{steps} steps were asked for; give 1 or more")
    start = random_carries(system, n_initial, seed) if initial is None else as_carries(initial, system.size, "carries")
    which = np.nonzero(points.stable)[0]
    attractors = torch.from_numpy(points.points[which])
    settings = {"held": system.held, "steps": steps, "initial": len(start), "dtype": "float64"}
    labels, took = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)

    def result() -> Basins:
        run = start[: len(labels)]
        nearest = torch.cdist(run, attractors).argmin(1) if len(which) else torch.full((len(run),), -2)
        return Basins(
            system=system.name,
            held=system.held,
            attractors=attractors.numpy(),
            which=which,
            starts=run.numpy(),
            labels=labels.numpy(),
            steps=took.numpy(),
            nearest=nearest.numpy(),
            provenance=Provenance(
                model=system.model or system.name,
                weights_hash=system.weights_hash,
                seed=seed,
                settings=settings,
                control="the attractor nearest to each carry, without running the map",
            ),
        )

    tick = keeping(progress, partial, lambda: result() if len(labels) else None)
    for lot in start.split(_LOT):
        tick(len(labels), len(start), f"running {len(start)} carries")
        rolled = roll_out(system, lot, attractors, steps=steps)
        labels, took = torch.cat([labels, rolled.label]), torch.cat([took, rolled.steps])
    return result()


def check_same(system: System, points: FixedPoints) -> None:
    """Raise ValueError unless `points` were found for `system`."""
    asked, found = (system.name, system.held, system.size), (points.system, points.held, points.points.shape[1])
    if asked != found or system.weights_hash != points.provenance.weights_hash:
        raise ValueError(
            f"the points are of {found[0]}, {found[1]} ({found[2]} numbers), and the system is {asked[0]}, {asked[1]} "
            f"({asked[2]} numbers), with other weights where these agree; search the system's own points first"
        )
