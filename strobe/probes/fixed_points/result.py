"""`FixedPoints`: what was found, how every initial carry ended, and what speaks against its being all."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Complex128, Float64, Int

from strobe.core.result import Result
from strobe.probes.fixed_points import classify, completeness

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class FixedPoints(Result):
    """Fixed and slow points of a recurrence under a held input.

    `system`, `held`: the recurrence and its input, in words. `fields`: name and number of entries of each part of the
    carry. `points` [n, size]: carries with F(x) = x, by saddle index; `speeds` [n]: |F(x) - x|, computed again at the
    point as it is here. `eigenvalues` [n, leading]: of the Jacobian of F, largest magnitude first; all of them, or of a
    large carry the leading ones (`strobe.probes.fixed_points.spectra`). `signs` [n]: of det(I - J). `hits` [n]: how
    many initial carries ended at each point (0: found later, between others). `slow_points`, `slow_speeds`,
    `slow_eigenvalues`: local minima of the speed, below `slow_below`, that are no fixed points. `ends`: how many
    initial carries ended as "fixed", "slow", "escaped" and "failed"; `exhausted` of the failed had used their budget.
    `n_later`, `rounds`: candidates and rounds of the search between points. `has_box`: whether the map is known to send
    a box into itself, so that the index sum has to be 1. `trajectories` [run, time, size]: for the portrait.
    `control`: the same search with the recurrent weights shuffled.
    """

    version: ClassVar[int] = 2

    system: str
    held: str
    fields: list[tuple[str, int]]
    points: Float64[np.ndarray, "n size"]
    speeds: Float64[np.ndarray, " n"]
    eigenvalues: Complex128[np.ndarray, "n leading"]
    signs: Int[np.ndarray, " n"]
    hits: Int[np.ndarray, " n"]
    slow_points: Float64[np.ndarray, "s size"]
    slow_speeds: Float64[np.ndarray, " s"]
    slow_eigenvalues: Complex128[np.ndarray, "s slow_leading"]
    slow_below: float
    ends: dict[str, int]
    exhausted: int
    n_later: int
    rounds: int
    has_box: bool
    trajectories: Float64[np.ndarray, "run time size"]
    control: "FixedPoints | None" = None

    @property
    def index(self) -> Int[np.ndarray, " n"]:
        """How many directions grow at each point."""
        return classify.saddle_index(self.eigenvalues)

    @property
    def kinds(self) -> list[str]:
        """What each point is: "stable node", "saddle of index 1", ... (`strobe.probes.fixed_points.classify`)."""
        return classify.kinds(self.eigenvalues, self.points.shape[1])

    @property
    def stable(self) -> np.ndarray:
        """Whether each point attracts: every eigenvalue inside the unit circle, [n] booleans."""
        return np.array([kind.startswith("stable") for kind in self.kinds], dtype=bool)

    @property
    def timescales(self) -> Float64[np.ndarray, "n leading"]:
        """-1 / ln |lambda| in steps, negative for growing directions."""
        return classify.timescales(self.eigenvalues)

    @property
    def n_marginal(self) -> int:
        """Points with an eigenvalue on the unit circle: samples of a line or ring, or a bifurcation."""
        return int(classify.is_marginal(self.eigenvalues).sum())

    @property
    def index_sum(self) -> int | None:
        """Sum of sign det(I - J), which has to be 1; None where it need not be (no box, or marginal points)."""
        return completeness.index_sum(self.signs) if self.has_box and not self.n_marginal else None

    @property
    def singleton_mass(self) -> float:
        """Estimated chance that a further initial carry finds a new point."""
        return completeness.singleton_mass(self.hits)

    @property
    def verdict(self) -> str:
        """What the completeness checks say: "falsified: ..." or "not falsified: ...", never "complete"."""
        return completeness.verdict(self.index_sum, self.singleton_mass, self.n_marginal, self.ends["failed"])

    def kind_counts(self) -> dict[str, int]:
        """How many points there are of each kind, by saddle index."""
        return dict(Counter(self.kinds))

    def figure(self, *, dimensions: int = 2, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Phase portrait: trajectories and points in the plane, or with 3 the space, of the points' main axes."""
        from strobe.probes.fixed_points import figures

        return figures.portrait(self, dimensions, template)

    def eigenvalue_figure(self, point: int | None = None, *, template: str = "strobe_light") -> Any:
        """Eigenvalues in the complex plane with the unit circle, of one point or of all, the control in grey."""
        from strobe.probes.fixed_points import figures

        return figures.eigenvalue_plane(self, point, template)

    def timescale_figure(self, *, template: str = "strobe_light") -> Any:
        """How long disturbances at each point take to fade, the control's points in grey."""
        from strobe.probes.fixed_points import figures

        return figures.point_timescales(self, template)

    def completeness_figure(self, *, template: str = "strobe_light") -> Any:
        """Points found against initial carries used, with what the checks say."""
        from strobe.probes.fixed_points import figures

        return figures.discovery(self, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per fixed and slow point: status, kind, index, speed, leading eigenvalue, tau, period, hits."""
        import pandas as pd

        n, s, spectra = len(self.points), len(self.slow_points), (self.eigenvalues, self.slow_eigenvalues)
        leading = np.concatenate([classify.leading_eigenvalue(values) for values in spectra])
        size = self.points.shape[1]
        return pd.DataFrame(
            {
                "point": np.arange(n + s),
                "status": np.array(["fixed"] * n + ["slow"] * s, dtype=object),
                "kind": np.array([k for values in spectra for k in classify.kinds(values, size)], dtype=object),
                "index": np.concatenate([classify.saddle_index(values) for values in spectra]),
                "speed": np.concatenate([self.speeds, self.slow_speeds]),
                "leading_abs": np.abs(leading),
                "leading_angle": np.angle(leading),
                "tau": classify.timescales(leading),
                "period": classify.periods(leading),
                "hits": np.concatenate([self.hits, np.full(s, -1)]),
                "norm": np.linalg.norm(np.concatenate([self.points, self.slow_points]), axis=1),
            }
        )

    def summary(self) -> str:
        """Points by kind, how the initial carries ended, the completeness checks, the control, the provenance."""
        counts = ", ".join(f"{n} {kind}" for kind, n in self.kind_counts().items()) or "none"
        lines = [f"{len(self.points)} fixed points of {self.system}, {self.held}: {counts}"]
        if len(self.speeds):
            lines.append(f"  largest speed {self.speeds.max():.2g}")
        if len(self.slow_points):
            low, high = self.slow_speeds.min(), self.slow_speeds.max()
            lines.append(f"  {len(self.slow_points)} slow points, speeds {low:.2g} to {high:.2g}")
        lines.append(f"  initial carries: {', '.join(f'{n} {end}' for end, n in self.ends.items())}")
        if self.exhausted:
            lines.append(f"  {self.exhausted} of the failed used up their iterations: this is a partial result")
        lines.append(f"  completeness, {self.verdict}")
        if self.control is not None:
            lines.append(f"  control: {len(self.control.points)} fixed points ({self.provenance.control})")
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
