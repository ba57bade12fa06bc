"""`MitigationComparison`: behaviour by position under each intervention, and what that says about collapse."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from strobe.core import figures
from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# Ours: how much accuracy has to fall beyond training to be called a fall, and how much of it an intervention on the
# memory has to bring back (and a control must not) to be called its cause.
_FALL, _RESTORED = 0.1, 0.5


@dataclass(frozen=True)
class MitigationComparison(Result):
    """`loss` (nats) and `accuracy` [runs, windows] per scored token, NaN where none was; `rms` [runs, windows, layers]
    of the memory's entries at each whole window's end. `runs`: names, the first "untouched"; `kinds`: their classes;
    `controls`: runs that should change nothing or repair nothing. Windows are of `window` tokens."""

    runs: tuple[str, ...]
    kinds: tuple[str, ...]
    controls: tuple[int, ...]
    train_length: int
    window: int
    loss: Float[np.ndarray, "runs windows"]
    accuracy: Float[np.ndarray, "runs windows"]
    rms: Float[np.ndarray, "runs whole_windows layers"]
    layers: tuple[int, ...]

    @property
    def partial(self) -> str:
        """How many of the runs were finished, in words; empty where all were."""
        asked = 1 + len(self.provenance.settings.get("mitigations", self.runs[1:]))
        return "" if len(self.runs) >= asked else f"cut short after {len(self.runs)} of {asked} runs"

    def beyond(self, name: Literal["accuracy", "loss"] = "accuracy") -> Float[np.ndarray, " runs"]:
        """Mean of "accuracy" or "loss" over the last half of the windows beyond the training length; NaN without."""
        first = -(-self.train_length // self.window)
        values = getattr(self, name)[:, first:]
        late = values[:, values.shape[1] // 2 :]
        return np.array([np.nanmean(row) if np.isfinite(row).any() else np.nan for row in late])

    def within(self) -> float:
        """Accuracy of the untouched model over the windows that end within the training length; NaN without."""
        values = self.accuracy[0, : max(1, self.train_length // self.window)]
        return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")

    @property
    def verdict(self) -> str:
        """ "collapse: ..." only where accuracy falls beyond training and an intervention on the memory brings back half
        of the fall or more while no control does (ours); else what is missing."""
        fall, late = self.within() - self.beyond()[0], self.beyond()
        if not np.isfinite(fall) or fall < _FALL:
            return f"no collapse: accuracy {self.within():.2f} within training, {late[0]:.2f} beyond"
        gained = (late - late[0]) / fall
        treated = [i for i in range(1, len(self.runs)) if i not in self.controls and self.kinds[i] != "Planted"]
        best = max(treated, key=lambda i: gained[i], default=0)
        if "Swap" not in self.kinds and any(self.kinds[i] == "Reset" for i in treated):
            return "no verdict: cut short before the memory was swapped for another row's, the control of its reset"
        fallen = f"accuracy {self.within():.2f} within training, {late[0]:.2f} beyond"
        fooled = [self.runs[i] for i in self.controls if gained[i] >= _RESTORED]
        if best == 0 or gained[best] < _RESTORED:
            return f"accuracy falls ({fallen}), and no intervention here brings it back: its cause is not shown"
        if fooled:
            return f"accuracy falls ({fallen}), but the control {fooled[0]!r} brings it back too: cause not shown"
        return f"collapse: {fallen}; {self.runs[best]!r} brings back {late[best]:.2f}, the controls do not"

    def figure(
        self, what: Literal["accuracy", "loss", "rms"] = "accuracy", *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """ "accuracy", "loss" or "rms" (mean over layers) by position, a line a run, controls in grey."""
        import plotly.graph_objects as go

        titles = {"accuracy": ("Accuracy by position", "share of scored tokens right"),
                  "loss": ("Loss by position", "loss (nats per scored token)"),
                  "rms": ("Size of the carry by position", "root mean square of the memory")}  # fmt: skip
        if what not in titles:
            raise ValueError(f"a figure of {what!r} was asked for; there are {', '.join(titles)}")
        values = self.rms.mean(-1) if what == "rms" else getattr(self, what)
        fig, palette = go.Figure(), figures.colors(template)
        at = (np.arange(values.shape[1]) + 1) * self.window
        drawn = 0
        for i, run in enumerate(self.runs):
            grey = i in self.controls
            colour = figures.CONTROL_COLOR if grey else palette[drawn % len(palette)]
            dash = ("dot", "dashdot")[i % 2] if grey else figures.DASHES[drawn % len(figures.DASHES)]
            drawn += not grey
            name = f"{run} (control)" if grey else run
            fig.add_scatter(x=at, y=values[i], mode="lines", name=name, line={"color": colour, "dash": dash})
        title, axis = titles[what]
        fig.update_xaxes(title_text="position (tokens)", type="log")
        fig.update_yaxes(title_text=axis, rangemode="tozero")
        fig.add_vline(x=self.train_length, line={"color": figures.CONTROL_COLOR, "width": 1})
        fig.add_annotation(
            x=float(np.log10(self.train_length)),
            y=1,
            yref="paper",
            text="training length",
            showarrow=False,
            xanchor="left",
            font={"color": figures.CONTROL_COLOR, "size": 11},
        )
        note = "; ".join(filter(None, (self.partial, self.verdict)))
        fig.update_layout(title={"text": title, "subtitle": {"text": note}}, margin={"t": 84}, height=440,
                          legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"})  # fmt: skip
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per run and window: the window's end, loss, accuracy."""
        import pandas

        run, window = (a.ravel() for a in np.indices(self.loss.shape))
        return pandas.DataFrame(
            {
                "run": np.array(self.runs, dtype=object)[run],
                "control": np.isin(run, self.controls),
                "end": (window + 1) * self.window,
                "loss": self.loss.ravel(),
                "accuracy": self.accuracy.ravel(),
            }
        )

    def summary(self) -> str:
        """The verdict, and each run's accuracy and loss far beyond training."""
        lines = [*([self.partial] if self.partial else []), self.verdict]
        accuracy, loss = self.beyond("accuracy"), self.beyond("loss")
        for i, run in enumerate(self.runs):
            mark = " (control)" if i in self.controls else ""
            lines.append(f"  {run}{mark}: accuracy {accuracy[i]:.3f}, loss {loss[i]:.3g} nats far beyond training")
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
