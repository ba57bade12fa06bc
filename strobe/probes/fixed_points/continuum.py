"""`continua`: lines and rings of fixed points, followed by predictor and corrector from every marginal or slow point.

Where J - I is singular fixed points need not be isolated: a network that keeps a number or an angle has a line or ring
of them (Seung 1996; Khona & Fiete 2022 review them), exactly or with a small drift. From such a point a step is taken
along the direction J - I does not see, and least-squares steps that leave that direction alone bring the carry back to
where F(x) - x is least; so on until the curve ends, closes, or moves faster than a slow point may.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor, nn

from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.probes.fixed_points.basin import check_same
from strobe.probes.fixed_points.probe import Tick, system_of
from strobe.probes.fixed_points.result import FixedPoints
from strobe.probes.fixed_points.system import System
from strobe.probes.partial import keeping

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_CORRECTIONS = 12
# Random directions in which the map is asked how fast it is beside the curve.
_BESIDE = 16


@dataclass(frozen=True)
class Continua(Result):
    """Curves of carries that stand still, or nearly.

    `shapes` [curve]: "ring", "line", "point" (the curve goes nowhere: a bifurcation) or "surface" (J - I is blind to
    more than one direction, so only the points it was seen at are listed). `points` [point, size]: in order along their
    curve `of` [point]. `dimensions`, `lengths`, `drifts` [curve]: the directions J - I is blind to; arc length, NaN for
    a surface; the largest |F(x) - x| on it. `beside` [curve]: the control, the median |F(x) - x| one step away from the
    curve in random directions. `step`: the distance between points. Of a run that was cut short, the curves that were
    followed by then.
    """

    system: str
    held: str
    shapes: list[str]
    points: Float64[np.ndarray, "point size"]
    of: Int[np.ndarray, " point"]
    dimensions: Int[np.ndarray, " curve"]
    lengths: Float64[np.ndarray, " curve"]
    drifts: Float64[np.ndarray, " curve"]
    beside: Float64[np.ndarray, " curve"]
    step: float

    @property
    def partial(self) -> str:
        """How many of the carries were looked at, in words; empty where all were."""
        asked = self.provenance.settings.get("from", 0)
        done = self.provenance.settings.get("looked_at", asked)
        return "" if done == asked else f"cut short after {done} of {asked} points to follow curves from"

    def figure(self, *, dimensions: int = 2, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The curves along the points' main axes."""
        from strobe.probes.fixed_points import orbit_figures

        return orbit_figures.continua(self, dimensions, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per curve."""
        import pandas as pd

        return pd.DataFrame(
            {
                "curve": np.arange(len(self.shapes)),
                "shape": np.array(self.shapes, dtype=object),
                "dimension": self.dimensions,
                "length": self.lengths,
                "points": np.bincount(self.of, minlength=len(self.shapes)),
                "drift": self.drifts,
                "beside": self.beside,
            }
        )

    def summary(self) -> str:
        """Each curve's shape, length and drift beside that of the carries around it, and the provenance."""
        lines = [f"{len(self.shapes)} continua of {self.system}, {self.held}"]
        for i, shape in enumerate(self.shapes):
            lines.append(
                f"  {shape} of dimension {self.dimensions[i]}, length {self.lengths[i]:.4g}: moves "
                f"{self.drifts[i]:.2g} a step at most, carries {self.step:g} beside it {self.beside[i]:.2g} (control)"
            )
        lines += [f"  {self.partial}"] if self.partial else []
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


@torch.no_grad()
def continua(
    source: System | nn.Module,
    points: FixedPoints,
    *,
    held: Any = None,
    layer: int | None = None,
    step: float = 0.05,
    flat: float = 1e-4,
    most: int = 1000,
    drift_below: float | None = None,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[Continua], None] | None = None,
) -> Continua:
    """Follow the curves through the marginal and slow points of `points`, found for `source` (given as there).

    `step`: distance between points of a curve. `flat`: singular values of J - I up to this count as 0 (relative to the
    largest, if that is above 1). `most`: points of one curve. `drift_below`: the largest |F(x) - x| on a curve; None
    for that of a slow point. All four are ours. Where `progress` raises, `partial` is given the curves of the points
    that were looked at, if any. Raises ValueError for points of another system or a step of 0.
    """
    system = system_of(source, held, layer)
    check_same(system, points)
    if not (step > 0 and flat > 0 and most >= 3):
        raise ValueError(f"step {step}, flat {flat}, most {most} were given; give positive ones, and most of 3 or more")
    limit = points.slow_below if drift_below is None else drift_below
    seeds = torch.cat([torch.from_numpy(points.points), torch.from_numpy(points.slow_points)])
    curves: list[tuple[str, int, Tensor]] = []
    surface: list[Tensor] = []
    settings = {"flat": flat, "most": most, "drift_below": float(limit), "from": len(seeds)}

    def result(done: int) -> Continua:
        found = list(curves)
        if surface:
            rows = torch.stack(surface)
            found.append(("surface", len(_blind(system, rows[0], flat)), rows))
        return _result(system, points, found, step, seed, settings | {"looked_at": done})

    tick = keeping(progress, partial, lambda: result(i) if i else None)
    for i, x in enumerate(seeds):
        tick(i, len(seeds), f"following curves from {len(seeds)} points")
        blind = len(_blind(system, x, flat))
        if blind > 1:
            surface.append(x)
        elif blind == 1 and not any(_passes(x, rows, step) for _, _, rows in curves):
            shape, rows = _trace(system, x, step, flat, most, limit)
            curves.append((shape, 1, rows))
    return result(len(seeds))


def _trace(system: System, x: Tensor, step: float, flat: float, most: int, limit: float) -> tuple[str, Tensor]:
    """(shape, carries in order along the curve) from one carry on it, first one way and then, if it ends, the other."""
    forward, closed = _follow(system, x, _blind(system, x, flat)[0], step, flat, most, limit)
    if closed:
        return "ring", torch.stack([x, *forward])
    back, _ = _follow(system, x, -_blind(system, x, flat)[0], step, flat, most, limit)
    rows = torch.stack([*reversed(back), x, *forward])
    return ("line" if len(rows) > 2 else "point"), rows


def _follow(
    system: System, start: Tensor, tangent: Tensor, step: float, flat: float, most: int, limit: float
) -> tuple[list[Tensor], bool]:
    """(carries after `start`, whether they come back to it)."""
    rows: list[Tensor] = []
    x = start
    while len(rows) < most:
        y = _corrected(system, x + step * tangent, flat)
        far = float((y - x).norm())
        blind = _blind(system, y, flat) if bool(y.isfinite().all()) else []
        speed = float(system.speed(y[None]))
        # A correction longer than the step has found something else than the next point.
        if not speed <= limit or not 0.3 * step < far < 2 * step or len(blind) != 1:
            return rows, False
        if len(rows) > 3 and float((y - start).norm()) < 0.8 * step:
            return rows, True
        rows.append(y)
        tangent = blind[0] * torch.sign(blind[0] @ (y - x))
        x = y
    return rows, False


def _blind(system: System, x: Tensor, flat: float) -> Tensor:
    """Orthonormal directions [k, size] that J - I maps to nothing."""
    _, s, v = torch.linalg.svd(_slope(system, x))
    return v[s <= flat * max(1.0, float(s[0]))]


def _corrected(system: System, x: Tensor, flat: float) -> Tensor:
    for _ in range(_CORRECTIONS):
        r = (system.step(x[None]) - x)[0]
        move = torch.linalg.pinv(_slope(system, x), rtol=flat, atol=flat) @ -r
        x = x + move
        if float(move.norm()) <= 1e-13 * (1 + float(x.abs().max())):
            break
    return x


def _slope(system: System, x: Tensor) -> Tensor:
    return system.jacobian(x[None])[0] - torch.eye(system.size, dtype=x.dtype)


def _passes(x: Tensor, rows: Tensor, step: float) -> bool:
    return bool((rows - x).norm(dim=1).min() <= step)


def _result(
    system: System,
    points: FixedPoints,
    curves: list[tuple[str, int, Tensor]],
    step: float,
    seed: int,
    settings: dict[str, Any],
) -> Continua:
    generator = torch.Generator().manual_seed(seed)
    beside = []
    for _, _, rows in curves:
        chosen = rows[torch.randint(len(rows), (_BESIDE,), generator=generator)]
        away = torch.randn(chosen.shape, generator=generator, dtype=chosen.dtype)
        beside.append(float(system.speed(chosen + step * away / away.norm(dim=1, keepdim=True)).median()))
    lengths = [_length(shape, rows) for shape, _, rows in curves]
    every = [rows for _, _, rows in curves]
    return Continua(
        system=system.name,
        held=system.held,
        shapes=[shape for shape, _, _ in curves],
        points=(torch.cat(every) if every else torch.zeros(0, system.size, dtype=torch.float64)).numpy(),
        of=np.repeat(np.arange(len(curves)), [len(rows) for rows in every]),
        dimensions=np.array([k for _, k, _ in curves], dtype=np.int64),
        lengths=np.array(lengths, dtype=np.float64),
        drifts=np.array([float(system.speed(rows).max()) for rows in every]),
        beside=np.array(beside),
        step=step,
        provenance=Provenance(
            model=points.provenance.model,
            weights_hash=system.weights_hash,
            seed=seed,
            settings={"held": system.held, "step": step, "dtype": "float64", **settings},
            control="carries one step beside the curve, in random directions",
        ),
    )


def _length(shape: str, rows: Tensor) -> float:
    if shape == "surface":
        return float("nan")
    rows = torch.cat([rows, rows[:1]]) if shape == "ring" else rows
    return float((rows[1:] - rows[:-1]).norm(dim=1).sum())
