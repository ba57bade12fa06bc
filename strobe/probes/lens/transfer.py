"""`LensTransfer`: what it costs to read a layer with another layer's translator."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class LensTransfer(Result):
    """Cross-entropy (nats) of translator l' on the activations of layer l, over `n_tokens` tokens (Belrose et al. 2023,
    section 3).

    `cross_entropy` [translator, activations]. `identity` [activations]: of the logit lens there, the control: a
    translator that costs more than none at all says nothing about a shared representation. `covariance_cosine` [layer,
    layer]: Frobenius cosine of the activations' covariances (position 0 left out), which the paper finds to predict the
    penalty.
    """

    cross_entropy: Float[np.ndarray, "translator activations"]
    identity: Float[np.ndarray, " activations"]
    covariance_cosine: Float[np.ndarray, "layer layer"]
    n_tokens: int

    @property
    def penalty(self) -> Float[np.ndarray, "translator activations"]:
        """CE(translator l' at l) - CE(translator l at l), nats; zero on the diagonal."""
        return self.cross_entropy - self.cross_entropy.diagonal()

    @property
    def identity_penalty(self) -> Float[np.ndarray, " activations"]:
        """CE(logit lens at l) - CE(translator l at l), nats."""
        return self.identity - self.cross_entropy.diagonal()

    @property
    def covariance_correlation(self) -> float:
        """Spearman correlation, off the diagonal, of penalty and covariance cosine; NaN where either is constant."""
        off = ~np.eye(len(self.identity), dtype=bool)
        if off.sum() < 2:
            return float("nan")
        from strobe.probes.lens.ranks import spearman

        return spearman(self.penalty[off], self.covariance_cosine[off])

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Penalty by translator (row) and activations (column); the last row is the control, no translator at all."""
        import plotly.graph_objects as go

        from strobe.core import figures
        from strobe.probes.lens.layer_axis import strided_layers

        n = len(self.identity)
        z = np.vstack([self.penalty, self.identity_penalty])
        shown = strided_layers(n - 1, 24) if n > 1 else [0]
        fig = go.Figure(
            go.Heatmap(
                z=z,
                x=list(range(n)),
                y=[*range(n), n + 0.5],
                **figures.diverging(z),
                colorbar={"title": {"text": "nats"}},
                hovertemplate="activations of layer %{x}<br>translator %{y}<br>penalty %{z:.3g} nats<extra></extra>",
            )
        )
        labels = [f"{layer} ({layer / n:.2f})" for layer in shown]
        fig.update_xaxes(title_text="activations of layer l, (l/L)", tickvals=shown, ticktext=labels, showgrid=False)
        fig.update_yaxes(
            title_text="translator of layer l'",
            tickvals=[*shown, n + 0.5],
            ticktext=[*labels, "none (control)"],
            showgrid=False,
        )
        figures.missing_cells(fig, z, list(range(n)), [*range(n), n + 0.5])
        fig.update_layout(title_text=f"Transfer penalty CE(l′ at l) − CE(l at l), {self.n_tokens} tokens")
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per translator and layer of activations."""
        import pandas as pd

        translator, activations = (a.ravel() for a in np.indices(self.cross_entropy.shape))
        return pd.DataFrame(
            {
                "translator": translator,
                "activations": activations,
                "cross_entropy": self.cross_entropy.ravel(),
                "penalty": self.penalty.ravel(),
                "identity_penalty": self.identity_penalty[activations],
                "covariance_cosine": self.covariance_cosine.ravel(),
            }
        )

    def summary(self) -> str:
        """Mean penalty by distance, the control, the correlation with covariances, the provenance."""
        n = len(self.identity)
        off = self.penalty[~np.eye(n, dtype=bool)]
        near = np.array([self.penalty[i, i + 1] for i in range(n - 1)])
        lines = [
            f"Transfer of {n} translators over {self.n_tokens} tokens",
            f"  mean penalty {off.mean():.4g} nats, to the next layer {near.mean():.4g} nats"
            if n > 1
            else "  one layer only",
            f"  control: mean penalty of no translator {self.identity_penalty.mean():.4g} nats",
            f"  Spearman correlation with the covariances' cosine {self.covariance_correlation:.2f}",
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
