"""`FeatureText`: what fires where in a text of your own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from strobe.core.result import Result
from strobe.probes.lens.readout import evaluating
from strobe.probes.provenance import provenance_of
from strobe.probes.sae.autoencoder import SparseAutoencoder
from strobe.probes.steering.contrast import token_row

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class FeatureText(Result):
    """`activations` [feature, token] of the `features` asked for, then of those that fire most in the text;
    `control_maximum` [feature]: their maximum over the same tokens in random order."""

    tokens: list[str]
    features: tuple[int, ...]
    activations: Float[np.ndarray, "feature time"]
    control_maximum: Float[np.ndarray, " feature"]

    def of(self, feature: int) -> np.ndarray:
        """The activations of one of the `features`. Raises ValueError for another."""
        if feature not in self.features:
            raise ValueError(f"feature {feature} was asked for; this text was read for {self.features}; read it again")
        return self.activations[self.features.index(feature)]

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Features by tokens."""
        import plotly.graph_objects as go

        from strobe.core import figures

        at = list(range(len(self.features)))
        fig = go.Figure()
        fig.add_heatmap(
            z=self.activations,
            x=list(range(len(self.tokens))),
            y=at,
            colorscale=figures.SEQUENTIAL,
            zmin=0.0,
            colorbar={"title": {"text": "activation"}},
            hovertemplate="token %{x}<br>row %{y}<br>activation %{z:.3g}<extra></extra>",
        )
        ticks = [f"{f}" for f in self.features]
        fig.update_yaxes(title_text="feature", tickmode="array", tickvals=at, ticktext=ticks, autorange="reversed")
        figures.token_axis(fig, self.tokens)
        ratio = self.control_maximum / np.maximum(self.activations.max(1), 1e-12)
        text = f"with the tokens in random order (control) the median maximum is {np.median(ratio):.2f} of that here"
        fig.update_layout(
            title={"text": "Features that fire in the text", "subtitle": {"text": text}},
            margin={"t": 84},
            height=max(320, 22 * len(at) + 190),
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per feature and token."""
        import pandas as pd

        n, time = self.activations.shape
        return pd.DataFrame(
            {
                "feature": np.repeat(self.features, time),
                "position": np.tile(np.arange(time), n),
                "token": list(self.tokens) * n,
                "activation": self.activations.ravel(),
            }
        )


@torch.no_grad()
def feature_text(
    model: Any, sae: SparseAutoencoder, text: str | Sequence[int], features: Sequence[int] = (), *, most: int = 20
) -> FeatureText:
    """The activations along `text` of `features` and of the `most` that reach highest in it.

    Raises ValueError for an autoencoder of another model, IndexError for a feature that does not exist.
    """
    sae.check(model)
    asked = sae.check_features(features)
    row = token_row(model, text)[None].to(next(model.parameters()).device)
    order = torch.from_numpy(np.random.default_rng(0).permutation(row.shape[1])).to(row.device)
    with evaluating(model):
        found, shuffled = (sae.encode(sae.site.read(model, tokens)[0]) for tokens in (row, row[:, order]))
    highest = found.max(0).values
    ranked = [int(i) for i in highest.argsort(descending=True)[: most + len(asked)] if highest[i] > 0]
    chosen = [*asked, *[i for i in ranked if i not in asked][:most]] or [0]
    return FeatureText(
        tokens=[str(t) for t in model.to_str_tokens(row[0])] if model.tokenizer else [f"[{int(i)}]" for i in row[0]],
        features=tuple(chosen),
        activations=found[:, chosen].T.double().cpu().numpy(),
        control_maximum=shuffled[:, chosen].max(0).values.double().cpu().numpy(),
        provenance=provenance_of(
            model,
            settings={
                "text": text if isinstance(text, str) else [int(t) for t in text], "features": asked, "most": most,
                "hook_name": sae.hook_name, "sae": sae.weights_hash(),
            },
            control="the maximum over the same tokens in random order",
        ),
    )  # fmt: skip
