"""`SaeEvaluation`: what an autoencoder keeps of an activation, and of the model, beside what much less would keep."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

VARIANTS = ("autoencoder", "PCA", "random dictionary", "mean ablation", "zero ablation")


@dataclass(frozen=True)
class SaeEvaluation(Result):
    """Axis: variant as in `variants`, each put in place of the activation on held-out text.

    "PCA": as many principal components as features are active on average. "random dictionary": the autoencoder before
    training (unit rows, tied encoder, the same number active), with its one best gain; ours. "mean", "zero": every
    vector replaced by the mean or by zeros.

    `l0`: numbers a vector (NaN for the ablations). `explained_variance`: 1 - squared error / variance. `cross_entropy`:
    of the model with the variant in place, nats a token; `clean`: of the model as it is. `density` [d_sae]: fraction of
    vectors on which each feature is active.
    """

    variants: tuple[str, ...]
    l0: Float[np.ndarray, " variant"]
    explained_variance: Float[np.ndarray, " variant"]
    cross_entropy: Float[np.ndarray, " variant"]
    clean: float
    density: Float[np.ndarray, " d_sae"]
    n_vectors: int
    n_tokens: int

    @property
    def dead(self) -> float:
        """Fraction of features that never fired on this text."""
        return float((self.density == 0).mean())

    def recovered(self, against: str = "zero ablation") -> Float[np.ndarray, " variant"]:
        """Cross-entropy recovered by each variant: 1 is the model as it is, 0 the ablation `against`. NaN where that
        ablation does no harm. Raises ValueError for another name than those of the two ablations."""
        if against not in ("mean ablation", "zero ablation"):
            raise ValueError(f"recovery against {against!r} was asked for; give 'zero ablation' or 'mean ablation'")
        worst = self.cross_entropy[self.variants.index(against)]
        harm = worst - self.clean
        return (worst - self.cross_entropy) / harm if harm > 0 else np.full(len(self.variants), np.nan)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Explained variance and recovered cross-entropy of the autoencoder and of its controls."""
        import plotly.graph_objects as go

        from strobe.core import figures

        shown = [i for i, name in enumerate(self.variants) if "ablation" not in name]
        measures = {
            "explained variance": self.explained_variance,
            "cross-entropy recovered (zero ablation)": self.recovered("zero ablation"),
            "cross-entropy recovered (mean ablation)": self.recovered("mean ablation"),
        }
        fig, palette = go.Figure(), figures.colors(template)
        for n, i in enumerate(shown):
            values = [float(m[i]) for m in measures.values()]
            fig.add_bar(
                x=list(measures),
                y=values,
                name=self.variants[i] + ("" if n == 0 else " (control)"),
                text=[f"{v:.3f}" for v in values],
                marker={"color": palette[0] if n == 0 else [figures.CONTROL_COLOR, "#C9CDD3"][n - 1]},
                cliponaxis=False,
            )
        low = min(0.0, *(float(np.nanmin(m[shown])) for m in measures.values()))
        fig.update_yaxes(title_text="fraction of what there is", range=[max(low, -1.0), 1.12])
        hook = self.provenance.settings.get("hook_name", "")
        text = (
            f"{self.l0[0]:.1f} features a vector, {self.dead:.1%} of {len(self.density)} dead, {self.n_tokens} tokens"
        )
        fig.update_layout(
            barmode="group",
            title={"text": f"What the autoencoder keeps of {hook}", "subtitle": {"text": text}},
            margin={"t": 96},
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per variant."""
        import pandas as pd

        return pd.DataFrame(
            {
                "variant": self.variants,
                "l0": self.l0,
                "explained_variance": self.explained_variance,
                "cross_entropy": self.cross_entropy,
                "clean_cross_entropy": self.clean,
                "recovered_against_zero": self.recovered("zero ablation"),
                "recovered_against_mean": self.recovered("mean ablation"),
            }
        )

    def summary(self) -> str:
        """A line a variant."""
        zero, mean = self.recovered("zero ablation"), self.recovered("mean ablation")
        lines = [
            f"Autoencoder of {self.provenance.settings.get('hook_name')} on {self.n_tokens} held-out "
            f"tokens: {self.l0[0]:.1f} features a vector, {self.dead:.1%} of {len(self.density)} never fire; the model "
            f"alone has {self.clean:.4f} nats per token"
        ]
        for i, name in enumerate(self.variants):
            lines.append(
                f"  {name}: explained variance {self.explained_variance[i]:.4f}, {self.cross_entropy[i]:.4f} nats, "
                f"recovered {zero[i]:.4f} (zero) {mean[i]:.4f} (mean)"
            )
        return "\n".join(lines)
