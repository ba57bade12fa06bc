"""`CausalBasis`: the directions of the residual stream that a layer's lens reads most from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result
from strobe.probes.lens.ranks import spearman

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class CausalBasis(Result):
    """Orthonormal directions at one layer, by how much the prediction changes when they are mean-ablated.

    Ablation along a unit vector v is r(h, v) = h - ((h - mean)·v) v. Energies are means over tokens, in nats:
    `energies` [k] of KL(lens(h) || lens(r(h, v))), `model_energies` [k] of KL(final || final) with the same ablation
    made in the model at this layer. `vectors` [k, d_model], most energy first. `mean` [d_model]: what is ablated to.
    Control: `random_energies` and `random_model_energies` [m] of random unit directions.
    """

    layer: int
    n_layers: int
    lens: str
    vectors: Float[np.ndarray, "k d_model"]
    energies: Float[np.ndarray, " k"]
    model_energies: Float[np.ndarray, " k"]
    random_energies: Float[np.ndarray, " m"]
    random_model_energies: Float[np.ndarray, " m"]
    mean: Float[np.ndarray, " d_model"]
    n_tokens: int

    @property
    def fidelity(self) -> float:
        """Spearman correlation of lens energies and model energies over the directions: is what the lens reads what
        matters?
        """
        return spearman(self.energies, self.model_energies)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Energy by direction: by the lens, in the model, and of random directions."""
        import plotly.graph_objects as go

        from strobe.core import figures

        palette, x = figures.colors(template), list(range(1, len(self.energies) + 1))
        fig = go.Figure()
        rows = (
            ("lens", self.energies, self.random_energies),
            ("model", self.model_energies, self.random_model_energies),
        )
        for i, (name, values, control) in enumerate(rows):
            line = {"color": palette[i], "dash": figures.DASHES[i]}
            marker = {"symbol": figures.SYMBOLS[i]}
            fig.add_scatter(
                x=x, y=values, name=f"ablated, seen by the {name}", mode="lines+markers", line=line, marker=marker
            )
            grey = {"color": figures.CONTROL_COLOR, "dash": figures.DASHES[i]}
            level = [float(np.mean(control))] * len(x)
            fig.add_scatter(x=x, y=level, name=f"control (random, {name})", mode="lines", line=grey)
        fig.update_xaxes(title_text="direction, by energy")
        fig.update_yaxes(title_text="energy: mean KL of the prediction (nats)", type="log")
        fig.update_layout(title_text=self._title())
        return figures.style(fig, template)

    def fidelity_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Energy in the model against energy by the lens, a point per direction, random ones in grey."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig = go.Figure()
        rows = (
            ("causal basis", self.energies, self.model_energies, figures.colors(template)[0]),
            ("control (random)", self.random_energies, self.random_model_energies, figures.CONTROL_COLOR),
        )
        for i, (name, x, y, color) in enumerate(rows):
            marker = {"color": color, "symbol": figures.SYMBOLS[i], "size": 9}
            fig.add_scatter(x=x, y=y, name=name, mode="markers", marker=marker)
        fig.update_xaxes(title_text="energy by the lens (nats)", type="log")
        fig.update_yaxes(title_text="energy in the model (nats)", type="log")
        fig.update_layout(title_text=f"{self._title()}, Spearman correlation {self.fidelity:.2f}")
        return figures.style(fig, template)

    def _title(self) -> str:
        return f"Causal basis at layer {self.layer} of {self.n_layers} ({self.lens} lens), {self.n_tokens} tokens"

    def to_frame(self) -> "pandas.DataFrame":
        """One row per direction; random directions have `random` True."""
        import pandas as pd

        k, m = len(self.energies), len(self.random_energies)
        return pd.DataFrame(
            {
                "direction": [*range(1, k + 1), *range(1, m + 1)],
                "random": [False] * k + [True] * m,
                "energy": np.concatenate([self.energies, self.random_energies]),
                "model_energy": np.concatenate([self.model_energies, self.random_model_energies]),
            }
        )

    def summary(self) -> str:
        """The energies, the control, the fidelity, the provenance."""
        shown = ", ".join(f"{e:.3g}" for e in self.energies[:8])
        lines = [
            self._title(),
            f"  energies by the lens (nats): {shown}",
            f"  control: random directions {self.random_energies.mean():.3g} by the lens, "
            f"{self.random_model_energies.mean():.3g} in the model",
            f"  Spearman correlation of lens and model energies: {self.fidelity:.2f}",
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
