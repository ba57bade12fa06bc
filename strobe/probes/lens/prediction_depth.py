"""`PredictionDepth`: after how many layers the model's answer is settled, over many predictions."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


def prediction_depths(top: Int[np.ndarray, "layer n"]) -> Int[np.ndarray, " n"]:
    """The first layer from which on the most probable token stays the final one, for each of n predictions.

    `top` holds the most probable token after layers 0..L. 0: decided by the embedding; L: not before the model's
    output. Belrose et al. 2023, section 5, after Baldock et al. 2021.

    >>> prediction_depths(np.array([[7, 7], [3, 5], [7, 5]])).tolist()
    [2, 1]
    """
    agrees = top == top[-1]
    stays = np.logical_and.accumulate(agrees[::-1], axis=0)
    return top.shape[0] - stays.sum(0)


@dataclass(frozen=True)
class PredictionDepth(Result):
    """How many predictions are settled at each layer, `counts` [lens, layer 0..L], by the lenses in `lenses`.

    A prediction's depth is the first layer from which on the lens's most probable token stays the model's. `agreement`
    [lens, layer]: the share of predictions whose most probable token is the final one at that layer, settled or not.
    The control is `constant_agreement`: the share right by always guessing the commonest of the model's answers.
    """

    lenses: tuple[str, ...]
    counts: Int[np.ndarray, "lens layer"]
    agreement: Float[np.ndarray, "lens layer"]
    constant_agreement: float

    @property
    def mean(self) -> Float[np.ndarray, " lens"]:
        """Mean depth as a fraction of L, per lens."""
        n_layers = self.counts.shape[1] - 1
        return (self.counts * np.arange(n_layers + 1)).sum(1) / self.counts.sum(1) / n_layers

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Share of predictions settled by each layer (cumulative), and the share that agrees there at all."""
        import plotly.graph_objects as go

        from strobe.core import figures
        from strobe.probes.lens.layer_axis import layer_axis, strided_layers

        n_layers = self.counts.shape[1] - 1
        layers = list(range(n_layers + 1))
        fig = go.Figure()
        for i, lens in enumerate(self.lenses):
            color = figures.colors(template)[i]
            settled = np.cumsum(self.counts[i]) / self.counts[i].sum()
            line = {"color": color, "dash": figures.DASHES[i]}
            fig.add_scatter(x=layers, y=settled, name=f"{lens} lens: settled", mode="lines+markers", line=line)
            thin = {"color": color, "dash": figures.DASHES[i], "width": 1}
            fig.add_scatter(x=layers, y=self.agreement[i], name=f"{lens} lens: agrees here", mode="lines", line=thin)
        grey = {"color": figures.CONTROL_COLOR, "dash": "dot"}
        level = [self.constant_agreement] * len(layers)
        fig.add_scatter(x=layers, y=level, name="control (commonest answer)", mode="lines", line=grey)
        layer_axis(fig, n_layers, strided_layers(n_layers, 24), "x")
        fig.update_yaxes(title_text="share of predictions", range=[0, 1.02])
        fig.update_layout(title_text=f"Predictions settled by layer, {int(self.counts[0].sum())} predictions")
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per lens and layer."""
        import pandas as pd

        lens, layer = (a.ravel() for a in np.indices(self.counts.shape))
        return pd.DataFrame(
            {
                "lens": np.array(self.lenses, dtype=object)[lens],
                "layer": layer,
                "depth": layer / (self.counts.shape[1] - 1),
                "settled": self.counts.ravel(),
                "agreement": self.agreement.ravel(),
            }
        )
