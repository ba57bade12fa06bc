"""`LensFit`: how the fit of a tuned lens went, and whether it went far enough."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


class UndertrainedLensWarning(UserWarning):
    """A tuned lens is worse than the logit lens, which it starts from, at some layer: it was not trained far enough."""


@dataclass(frozen=True)
class LensFit(Result):
    """KL(final || lens) in nats, of layers 0..L-1: during the fit, and on tokens the fit did not see.

    `steps` [point], `training_kl` [point, layer]: mean over the batches since the last point. `tuned_kl`, `logit_kl`
    [layer]: held out; the logit lens is what the fit started from. `standard_error` [layer]: of the difference tuned -
    logit, paired by row (NaN with one row). `control_kl`: of the constant lens, the model's average output (see
    `LensTrajectory`).
    """

    steps: Int[np.ndarray, " point"]
    training_kl: Float[np.ndarray, "point layer"]
    tuned_kl: Float[np.ndarray, " layer"]
    logit_kl: Float[np.ndarray, " layer"]
    standard_error: Float[np.ndarray, " layer"]
    control_kl: float
    n_held_out_tokens: int

    @property
    def undertrained(self) -> Bool[np.ndarray, " layer"]:
        """Layers where the tuned lens is worse than the logit lens on held-out tokens, by more than two standard
        errors.

        Zero-initialised translators start as the logit lens, so a converged one cannot be worse on the data it was
        fitted to.
        """
        margin = np.where(np.isfinite(self.standard_error), 2 * self.standard_error, 0.0)
        # Below 1e-6 nats a difference is rounding.
        return self.tuned_kl - self.logit_kl > np.maximum(margin, 1e-6)

    def warning(self) -> str | None:
        """What to tell the user where layers are undertrained, or None."""
        bad = np.flatnonzero(self.undertrained)
        if not bad.size:
            return None
        return (
            f"the tuned lens is worse than the logit lens at layer {', '.join(map(str, bad))} on "
            f"{self.n_held_out_tokens} held-out tokens (worst: {self.tuned_kl[bad].max():.3g} nats); it starts as the "
            "logit lens, so it is undertrained or the learning rate is too high: give more steps, or another "
            "learning_rate"
        )

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Held-out KL(final || lens) by layer: tuned lens, logit lens, constant lens."""
        import plotly.graph_objects as go

        from strobe.core import figures
        from strobe.probes.lens.layer_axis import layer_axis, strided_layers

        n, palette = len(self.tuned_kl), figures.colors(template)
        layers = list(range(n))
        fig = go.Figure()
        for i, (name, values) in enumerate((("tuned lens", self.tuned_kl), ("logit lens", self.logit_kl))):
            fig.add_scatter(
                x=layers,
                y=values,
                name=name,
                mode="lines+markers",
                line={"color": palette[i], "dash": figures.DASHES[i]},
                marker={"symbol": figures.SYMBOLS[i]},
            )
        grey = {"color": figures.CONTROL_COLOR, "dash": "dot"}
        fig.add_scatter(x=layers, y=[self.control_kl] * n, name="control (constant lens)", mode="lines", line=grey)
        layer_axis(fig, n, strided_layers(n, 24), "x")
        fig.update_yaxes(title_text="KL(final ‖ lens) (nats per token)", type="log")
        subtitle = self.warning() or "no layer is worse than the logit lens it started from"
        fig.update_layout(
            title={
                "text": f"Fit of the tuned lens, {self.n_held_out_tokens} held-out tokens",
                "subtitle": {"text": subtitle},
            },
            margin={"t": 84},
        )
        return figures.style(fig, template)

    def training_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """KL on the training batches against the step, a line per layer (pale: early, strong: late)."""
        import plotly.graph_objects as go
        from plotly.colors import sample_colorscale

        from strobe.core import figures

        n = self.training_kl.shape[1]
        shades = sample_colorscale(figures.SEQUENTIAL_REVERSED, [0.15 + 0.85 * i / max(n - 1, 1) for i in range(n)])
        fig = go.Figure()
        for layer in range(n):
            line = {"color": shades[layer]}
            fig.add_scatter(x=self.steps, y=self.training_kl[:, layer], name=f"layer {layer}", mode="lines", line=line)
        fig.update_xaxes(title_text="step")
        fig.update_yaxes(title_text="KL(final ‖ lens) (nats per token)", type="log")
        fig.update_layout(title_text="Tuned lens: KL on the training batches")
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per layer."""
        import pandas as pd

        n = len(self.tuned_kl)
        return pd.DataFrame(
            {
                "layer": np.arange(n),
                "depth": np.arange(n) / n,
                "tuned_kl": self.tuned_kl,
                "logit_kl": self.logit_kl,
                "standard_error": self.standard_error,
                "control_kl": self.control_kl,
                "undertrained": self.undertrained,
            }
        )

    def summary(self) -> str:
        """KL by layer for both lenses, the control, the verdict, the provenance."""
        lines = [f"Tuned lens of {len(self.tuned_kl)} layers, judged on {self.n_held_out_tokens} held-out tokens"]
        for layer, (a, b) in enumerate(zip(self.tuned_kl, self.logit_kl, strict=True)):
            lines.append(f"  layer {layer}: KL {a:.4g} nats, logit lens {b:.4g}")
        lines.append(f"  control: constant lens {self.control_kl:.4g} nats")
        lines.append(f"  {self.warning() or 'no layer is worse than the logit lens'}")
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
