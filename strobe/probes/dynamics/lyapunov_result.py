"""`LyapunovSpectrum`: exponents with their spread over orbits, the volume check, and the dimension they imply."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int

from strobe.core import figures
from strobe.core.result import Result
from strobe.core.tokens import escape_plotly

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class LyapunovSpectrum(Result):
    """Lyapunov exponents, per unit of time, largest first.

    `system`, `held`: what was followed, and under which input. `exponents` [orbits, kept]. `volume` [orbits]: mean
    ln |det J| per unit of time, which the sum of all exponents has to equal. `curve` [looks, kept]: the running mean
    over orbits after `at` [looks] steps. `dt`: units of time a step. `control` [kept]: the same with the Jacobians in
    random order (empty: not asked for). Of a layer along a text that was cut short, over the positions counted by then.
    """

    system: str
    held: str
    exponents: Float64[np.ndarray, "orbits kept"]
    volume: Float64[np.ndarray, " orbits"]
    curve: Float64[np.ndarray, "looks kept"]
    at: Int[np.ndarray, " looks"]
    dt: float
    control: Float64[np.ndarray, " controls"]

    @property
    def partial(self) -> str:
        """How many of a text's positions were counted, in words; empty where all were."""
        said = self.provenance.settings
        asked = said.get("positions", 0) - said.get("transient", 0)
        counted = said.get("counted", asked)
        return "" if counted == asked else f"cut short after {counted} of {asked} positions"

    @property
    def mean(self) -> Float64[np.ndarray, " kept"]:
        """Mean over orbits."""
        return self.exponents.mean(0)

    @property
    def standard_error(self) -> Float64[np.ndarray, " kept"]:
        """Of that mean, from the spread of the orbits; NaN with fewer than two."""
        n = len(self.exponents)
        return self.exponents.std(0, ddof=1) / np.sqrt(n) if n > 1 else np.full(self.exponents.shape[1], np.nan)

    @property
    def kaplan_yorke(self) -> float:
        """Kaplan and Yorke's dimension j + (sum of the first j exponents) / |exponent j+1|, j the most whose sum is not
        negative. 0 where the largest is negative; NaN where the exponents kept never sum to less than 0."""
        total = np.cumsum(self.mean)
        if self.mean[0] < 0:
            return 0.0
        if total[-1] >= 0:
            return float("nan")
        j = int(np.argmax(total < 0))
        return j + float(total[j - 1] / abs(self.mean[j]))

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The spectrum, zero drawn, the control in grey."""
        import plotly.graph_objects as go

        index = np.arange(1, len(self.mean) + 1)
        fig = go.Figure()
        if len(self.control):
            fig.add_scatter(
                x=index,
                y=self.control,
                mode="lines+markers",
                name="random order (control)",
                line={"color": figures.CONTROL_COLOR, "dash": "dash"},
                marker={"symbol": "x"},
            )
        error = self.standard_error
        fig.add_scatter(
            x=index,
            y=self.mean,
            mode="lines+markers",
            name="this orbit" if len(self.exponents) == 1 else f"mean of {len(self.exponents)} orbits",
            line={"color": figures.colors(template)[0]},
            error_y={"type": "data", "array": error, "visible": bool(np.isfinite(error).all())},
        )
        fig.add_hline(y=0, line={"width": 1, "dash": "dot", "color": figures.CONTROL_COLOR})
        note = f"{escape_plotly(self.held)}; Kaplan-Yorke dimension {self.kaplan_yorke:.3g}"
        note = "; ".join(filter(None, (self.partial, note)))
        fig.update_layout(
            title={"text": f"Lyapunov exponents of {escape_plotly(self.system)}", "subtitle": {"text": note}},
            margin={"t": 84},
            legend={"y": -0.18, "yanchor": "top", "x": 0, "xanchor": "left"},
        )
        fig.update_xaxes(title_text="exponent, largest first")
        fig.update_yaxes(title_text="nats per step" if self.dt == 1 else "nats per unit of time")
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row an exponent: mean, standard error over orbits, control."""
        import pandas as pd

        n = len(self.mean)
        control = self.control if len(self.control) else np.full(n, np.nan)
        return pd.DataFrame(
            {
                "exponent": np.arange(1, n + 1),
                "mean": self.mean,
                "standard_error": self.standard_error,
                "control": control,
            }
        )

    def summary(self) -> str:
        """The largest exponents, their sum beside the volume's, the dimension, the control, the provenance."""
        shown = ", ".join(f"{v:.4g}" for v in self.mean[:6]) + (", ..." if len(self.mean) > 6 else "")
        # Within three standard errors of zero the sign is not known; with one orbit there is no error to judge by.
        error = self.standard_error[0]
        sure = "chaotic" if self.mean[0] > 0 else "settles"
        verdict = sure if np.isfinite(error) and abs(self.mean[0]) > 3 * error else "sign not settled by this run"
        lines = [
            f"Lyapunov exponents of {self.system}, {self.held}: {shown}",
            f"  largest {self.mean[0]:.4g} +- {error:.2g}: {verdict}; Kaplan-Yorke dimension {self.kaplan_yorke:.4g}",
            f"  sum {self.mean.sum():.6g}, mean ln |det J| {self.volume.mean():.6g}",
        ]
        if len(self.control):
            lines.append(f"  control: largest {self.control[0]:.4g} ({self.provenance.control})")
        lines += [f"  {self.partial}"] if self.partial else []
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
