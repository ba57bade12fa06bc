"""`DepthOrbit`: what a block applied again and again does to each token, in numbers and in a picture."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class DepthOrbit(Result):
    """The trajectory of each token (or of one carry) under a map applied `len(speeds)` times.

    `units` [unit]: the tokens. `kinds` [unit]: "fixed point: node", "fixed point: spiral", "fixed point: alternating",
    "orbit", "slider", "quasi-periodic", "chaotic" or "undecided" (`depth_orbit`). `periods` [unit]: of an orbit, else
    0. `speeds` [step, unit]: |s_t+1 - s_t| over the first step's. `rates` [unit]: factor by which a step shrinks, at
    the end. `recurrences` [unit]: smallest distance of a return over the diameter, in the last half. `straightness`
    [unit]: net displacement over path length there. `exponents` [unit]: largest Lyapunov exponent, nats a step.
    `paths` [time, unit, 3]: along three principal axes of all, which hold `shares` [3] of the variance. `control`
    [unit]: the kinds from another start, the entries of the first one permuted. Of a run that was cut short, the steps
    that were made.
    """

    system: str
    units: list[str]
    kinds: list[str]
    periods: Int[np.ndarray, " unit"]
    speeds: Float64[np.ndarray, "step unit"]
    rates: Float64[np.ndarray, " unit"]
    recurrences: Float64[np.ndarray, " unit"]
    straightness: Float64[np.ndarray, " unit"]
    exponents: Float64[np.ndarray, " unit"]
    paths: Float64[np.ndarray, "time unit 3"]
    shares: Float64[np.ndarray, " 3"]
    control: list[str]

    @property
    def partial(self) -> str:
        """How many of the steps were made, in words; empty where all were."""
        asked = self.provenance.settings.get("steps", len(self.speeds))
        return "" if len(self.speeds) == asked else f"cut short after {len(self.speeds)} of {asked} steps"

    @property
    def agreement(self) -> float:
        """The share of the units that do the same from another start."""
        return float(np.mean([a == b for a, b in zip(self.kinds, self.control, strict=True)]))

    def figure(self, *, dimensions: int = 2, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Each token's path along the principal axes."""
        from strobe.probes.fixed_points import depth_figures

        return depth_figures.paths(self, dimensions, template)

    def speed_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """How far each token moves in a step, over the first step, against the step."""
        from strobe.probes.fixed_points import depth_figures

        return depth_figures.speeds(self, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per token."""
        import pandas as pd

        return pd.DataFrame(
            {
                "unit": np.arange(len(self.units)),
                "token": np.array(self.units, dtype=object),
                "kind": np.array(self.kinds, dtype=object),
                "kind_from_another_start": np.array(self.control, dtype=object),
                "period": self.periods,
                "rate": self.rates,
                "recurrence": self.recurrences,
                "straightness": self.straightness,
                "exponent": self.exponents,
            }
        )

    def summary(self) -> str:
        """Kinds by count, the control, and the provenance."""
        said = ", ".join(f"{n} {kind}" for kind, n in Counter(self.kinds).items())
        lines = [
            f"{self.system}, {len(self.speeds)} times: {said}",
            f"  {self.agreement:.0%} do the same from another start (control)",
            *([f"  {self.partial}"] if self.partial else []),
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
