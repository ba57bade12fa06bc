"""`IterativeInference`: does each block move the residual stream downhill in the loss, and what if it did not?"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# Whose updates the cosines are of, in this order: the token's own, and the two controls.
UPDATES = ("own", "another token's", "random direction")


@dataclass(frozen=True)
class IterativeInference(Result):
    """Axes: gradient as in `gradients`; update as in `UPDATES`; block 0..L-1; token.

    With u = resid[l+1] - resid[l] the update that block l makes at a token, and g the gradient at resid[l] of a
    cross-entropy of the next token: "model" of the model's own, through every block from l on (over all later tokens of
    the row too), or of the lens's at l ("logit lens": what the model would predict if it stopped there).

    `cosine`: cos(u, -g), above 0 where the update goes downhill; NaN where u or g is 0. Its controls are another
    token's update at the same block, and a random direction. `first_order` [gradient, update, block]: mean of u·g, the
    change in loss (nats a token) that a small share of the update makes, per share; the random one has the own one's
    norm. `loss`: of the model, nats a token. `deleted` [block]: with that block left out. `replaced` [block], its
    control: with its updates replaced by random directions of the same norms. Of a run that was cut short, all of it
    over the rows that were read.
    """

    gradients: tuple[str, ...]
    cosine: Float[np.ndarray, "gradient update block token"]
    first_order: Float[np.ndarray, "gradient update block"]
    loss: float
    deleted: Float[np.ndarray, " block"]
    replaced: Float[np.ndarray, " block"]

    @property
    def partial(self) -> str:
        """How many of the rows were read, in words; empty where all were."""
        asked = self.provenance.settings.get("rows", 0)
        read = self.provenance.settings.get("read", asked)
        return "" if read == asked else f"cut short after {read} of {asked} rows"

    @property
    def mean(self) -> Float[np.ndarray, "gradient update block"]:
        """Mean cosine over the tokens where it is known."""
        return _over_known(self.cosine, self.cosine)

    @property
    def downhill(self) -> Float[np.ndarray, "gradient update block"]:
        """Share of the tokens with a cosine at which it is above 0."""
        return _over_known(self.cosine, self.cosine > 0)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Mean cosine of update and downhill direction by block, and the share of tokens where it is positive."""
        from plotly.subplots import make_subplots

        from strobe.core import figures

        chance = f"{self.cosine.shape[-1]:,} tokens; 0 and one half are what chance gives"
        fig = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08)
        blocks = np.arange(len(self.deleted))
        for i, gradient in enumerate(self.gradients):
            for k, update in enumerate(UPDATES):
                color = figures.CONTROL_COLOR if k else figures.colors(template)[i]
                line, marker = {"color": color, "dash": figures.DASHES[k]}, {"symbol": figures.SYMBOLS[i]}
                name = f"{gradient}: {update}" if not k else f"control, {gradient}: {update}"
                for row, values in enumerate((self.mean[i, k], self.downhill[i, k]), 1):
                    fig.add_scatter(
                        x=blocks, y=values, name=name, legendgroup=name, showlegend=row == 1, mode="lines+markers",
                        line=line, marker=marker, row=row, col=1,
                    )  # fmt: skip
        fig.update_yaxes(title_text="mean cos(update, −gradient)", row=1, col=1)
        fig.update_yaxes(title_text="share of tokens downhill", range=[0, 1], row=2, col=1)
        fig.update_xaxes(dtick=max(1, len(blocks) // 24))
        fig.update_xaxes(title_text="block", row=2, col=1)
        fig.update_layout(
            title={
                "text": "Does each block go downhill in the loss?",
                "subtitle": {"text": "; ".join(filter(None, (self.partial, chance)))},
            },
            height=640,
            margin={"t": 130},
        )
        return figures.style(fig, template)

    def deletion_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Loss without each block in turn, and with its updates replaced by random ones of the same norms."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig, blocks = go.Figure(), np.arange(len(self.deleted))
        for i, (name, values) in enumerate(
            (("block left out", self.deleted), ("control: random update of equal norm", self.replaced))
        ):
            color = figures.CONTROL_COLOR if i else figures.colors(template)[0]
            fig.add_scatter(
                x=blocks, y=values, name=name, mode="lines+markers", marker={"symbol": figures.SYMBOLS[i]},
                line={"color": color, "dash": figures.DASHES[i]},
            )  # fmt: skip
        fig.add_hline(y=self.loss, line={"dash": "dashdot", "width": 1}, annotation_text="the whole model")
        fig.update_xaxes(title_text="block", dtick=max(1, len(blocks) // 24))
        fig.update_yaxes(title_text="cross-entropy of the next token (nats)", rangemode="tozero")
        fig.update_layout(title={"text": "Loss without each block in turn", "subtitle": {"text": self.partial}})
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per gradient, update and block; `deleted` and `replaced` are the block's, whatever the row."""
        import pandas

        shape = self.first_order.shape
        gradient, update, block = (a.ravel() for a in np.indices(shape))
        return pandas.DataFrame(
            {
                "gradient": np.array(self.gradients, dtype=object)[gradient],
                "update": np.array(UPDATES, dtype=object)[update],
                "block": block,
                "cosine": self.mean.ravel(),
                "downhill": self.downhill.ravel(),
                "first_order": self.first_order.ravel(),
                "deleted": self.deleted[block],
                "replaced": self.replaced[block],
                "loss": self.loss,
            }
        )

    def summary(self) -> str:
        """Cosines and shares of each block beside the controls, and what leaving it out does."""
        lines = [f"Iterative inference over {self.cosine.shape[-1]} tokens; loss {self.loss:.3f} nats a token"]
        for block in range(len(self.deleted)):
            said = [
                f"{name}: cosine {self.mean[i, 0, block]:.3f} (another token's {self.mean[i, 1, block]:.3f}), downhill "
                f"{self.downhill[i, 0, block]:.0%} ({self.downhill[i, 1, block]:.0%})"
                for i, name in enumerate(self.gradients)
            ]
            lines.append(
                f"  block {block}: {'; '.join(said)}; left out {self.deleted[block]:.3f} nats (random update "
                f"{self.replaced[block]:.3f})"
            )
        lines += [f"  {self.partial}"] if self.partial else []
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def _over_known(cosine: np.ndarray, values: np.ndarray) -> np.ndarray:
    known = np.isfinite(cosine)
    count = known.sum(-1)
    return np.where(count > 0, np.where(known, values, 0).sum(-1) / np.maximum(count, 1), np.nan)
