"""`LensEvaluation`: how good and how biased a lens is at each layer, over many tokens."""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result
from strobe.probes.lens.prediction_depth import PredictionDepth
from strobe.probes.lens.transfer import LensTransfer

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class LensEvaluation(Result):
    """Means over `n_tokens` tokens, per lens in `lenses` and layer 0..L; nats.

    `cross_entropy`: of the next token. `kl`: KL(final || lens). `entropy`: of the lens. `bias`: KL(mean final || mean
    lens), of the two distributions averaged over tokens: what the lens gets wrong whatever the token (Belrose et al.
    2023, section 3). `control_kl`, `control_cross_entropy`: of the best constant, the mean final distribution itself
    (for it, `bias` is 0). `depth`: where predictions settle. `transfer`: a translator on another layer's activations;
    None where not asked for. `bytes_per_token`: of the text, None if unknown.
    """

    lenses: tuple[str, ...]
    cross_entropy: Float[np.ndarray, "lens layer"]
    kl: Float[np.ndarray, "lens layer"]
    entropy: Float[np.ndarray, "lens layer"]
    bias: Float[np.ndarray, "lens layer"]
    control_kl: float
    control_cross_entropy: float
    depth: PredictionDepth
    transfer: LensTransfer | None
    n_tokens: int
    bytes_per_token: float | None

    @property
    def unit(self) -> str:
        """What `curve` is in: "bits/byte", or "bits/token" where the number of bytes is unknown."""
        return "bits/token" if self.bytes_per_token is None else "bits/byte"

    def in_unit(self, nats: Any) -> Any:
        """Nats per token in `unit`: nats / ln 2, over the bytes per token."""
        return nats / log(2) / (self.bytes_per_token or 1.0)

    def curve(self, lens: str | None = None) -> Float[np.ndarray, " layer"]:
        """Cross-entropy at each layer, in `unit`. Raises ValueError for a lens that was not evaluated."""
        if lens is not None and lens not in self.lenses:
            raise ValueError(f"lens {lens!r} was asked for; this evaluation has {', '.join(self.lenses)}")
        return self.in_unit(self.cross_entropy[0 if lens is None else self.lenses.index(lens)])

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Cross-entropy by layer of each lens, the model and the control."""
        fig = self._lines(self.in_unit(self.cross_entropy), self.in_unit(self.control_cross_entropy), template)
        fig.add_hline(
            y=float(self.curve()[-1]), line={"dash": "dashdot", "width": 1}, annotation_text="the model itself"
        )
        fig.update_yaxes(title_text=f"cross-entropy of the next token ({self.unit})", rangemode="tozero")
        return fig.update_layout(title_text=f"Cross-entropy after each layer, {self.n_tokens} tokens")

    def kl_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """KL(final || lens) by layer of each lens and the control."""
        fig = self._lines(self.kl, self.control_kl, template)
        fig.update_yaxes(title_text="KL(final ‖ lens) (nats per token)", rangemode="tozero")
        return fig.update_layout(title_text=f"Distance to the final prediction, {self.n_tokens} tokens")

    def bias_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Bias by layer: KL between the mean distributions of model and lens."""
        fig = self._lines(self.bias, None, template)
        fig.update_yaxes(title_text="KL(mean final ‖ mean lens) (nats)", rangemode="tozero")
        return fig.update_layout(title_text=f"Bias of the lens, {self.n_tokens} tokens; 0 is a lens right on average")

    def _lines(self, values: np.ndarray, control: float | None, template: str) -> "plotly.graph_objects.Figure":
        import plotly.graph_objects as go

        from strobe.core import figures
        from strobe.probes.lens.layer_axis import layer_axis, strided_layers

        n_layers = values.shape[1] - 1
        layers, palette = list(range(n_layers + 1)), figures.colors(template)
        fig = go.Figure()
        for i, lens in enumerate(self.lenses):
            line = {"color": palette[i], "dash": figures.DASHES[i]}
            marker = {"symbol": figures.SYMBOLS[i]}
            fig.add_scatter(x=layers, y=values[i], name=f"{lens} lens", mode="lines+markers", line=line, marker=marker)
        if control is not None:
            grey = {"color": figures.CONTROL_COLOR, "dash": "dot"}
            fig.add_scatter(x=layers, y=[control] * len(layers), name="control (constant)", mode="lines", line=grey)
        layer_axis(fig, n_layers, strided_layers(n_layers, 24), "x")
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per lens and layer; `cross_entropy_in_unit` is in `unit`, the others in nats."""
        import pandas as pd

        lens, layer = (a.ravel() for a in np.indices(self.kl.shape))
        return pd.DataFrame(
            {
                "lens": np.array(self.lenses, dtype=object)[lens],
                "layer": layer,
                "depth": layer / (self.kl.shape[1] - 1),
                "cross_entropy": self.cross_entropy.ravel(),
                "cross_entropy_in_unit": self.in_unit(self.cross_entropy).ravel(),
                "unit": self.unit,
                "kl": self.kl.ravel(),
                "entropy": self.entropy.ravel(),
                "bias": self.bias.ravel(),
                "control_kl": self.control_kl,
                "control_cross_entropy": self.control_cross_entropy,
            }
        )

    def summary(self) -> str:
        """Cross-entropy, KL and bias at a few depths, mean prediction depth, the control, the provenance."""
        n_layers = self.kl.shape[1] - 1
        lines = [f"Lens evaluation over {self.n_tokens} tokens, {n_layers} layers"]
        for i, lens in enumerate(self.lenses):
            lines += [
                f"  {lens} lens, layer {layer}: {self.curve(lens)[layer]:.4g} {self.unit}, KL {self.kl[i, layer]:.4g} "
                f"nats, bias {self.bias[i, layer]:.4g} nats"
                for layer in sorted({0, n_layers // 2, n_layers})
            ]
            lines.append(f"  {lens} lens: predictions settle at {self.depth.mean[i]:.2f} of the depth on average")
        lines.append(
            f"  control: {self.in_unit(self.control_cross_entropy):.4g} {self.unit}, KL {self.control_kl:.4g} nats"
        )
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
