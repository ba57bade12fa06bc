"""`BlockRecurrence`: what is lost when a model's blocks share k sets of weights, beside blocks shared at random."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class BlockRecurrence(Result):
    """Axes: surrogate as in `k`; kind (0 contiguous phases, 1 the control: members drawn at random, NaN where no other
    drawing exists); point of the training as in `steps`; block.

    `assignments`, `control_assignments`: each block's group. `loss`: held-out share of the scatter of the model's
    residual stream that the surrogate misses, on its own states, mean over blocks: 0 is the model itself, 1 each
    depth's mean state. `block_loss`: the same for each block, at the end. `kl`: KL(model || surrogate), nats per token.
    """

    k: tuple[int, ...]
    assignments: tuple[tuple[int, ...], ...]
    control_assignments: tuple[tuple[int, ...], ...]
    steps: Int[np.ndarray, " point"]
    loss: Float[np.ndarray, "surrogate kind point"]
    kl: Float[np.ndarray, "surrogate kind point"]
    block_loss: Float[np.ndarray, "surrogate kind block"]

    @property
    def partial(self) -> str:
        """How many of the surrogates were trained, their controls too, in words; empty where all were."""
        asked = len(self.provenance.settings.get("k", self.k))
        return "" if len(self.k) == asked else f"cut short after {len(self.k)} of {asked} surrogates"

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Held-out loss and divergence during training, for each k, beside the control."""
        from plotly.subplots import make_subplots

        from strobe.core import figures
        from strobe.probes.geometry.figures import LEGEND_BELOW

        fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
        palette = figures.colors(template)
        for column, values in enumerate((self.loss, self.kl), 1):
            for i, count in enumerate(self.k):
                for kind in (1, 0):
                    if np.isnan(values[i, kind]).all():
                        continue
                    fig.add_scatter(
                        x=self.steps, y=values[i, kind], mode="lines+markers",
                        name=f"k = {count}" + (", control: drawn at random" if kind else ", contiguous phases"),
                        legendgroup=f"{i} {kind}", showlegend=column == 1,
                        line={
                            "color": figures.CONTROL_COLOR if kind else palette[i % len(palette)],
                            "dash": figures.DASHES[i % len(figures.DASHES)],
                        },
                        marker={"symbol": "x" if kind else figures.SYMBOLS[i % len(figures.SYMBOLS)]},
                        row=1, col=column,
                    )  # fmt: skip
        panel: dict[str, Any] = {"row": 1, "col": 1}
        fig.add_hline(y=1, line={"dash": "dashdot", "width": 1}, annotation_text="each depth's mean state", **panel)
        fig.update_xaxes(title_text="training steps")
        fig.update_yaxes(title_text="residual stream missed (share of scatter)", rangemode="tozero", row=1, col=1)
        fig.update_yaxes(title_text="KL(model ‖ surrogate) (nats per token)", rangemode="tozero", row=1, col=2)
        said = "on held-out text, running on its own states; grey: shared at random"
        fig.update_layout(
            title={
                "text": f"k shared blocks in the place of {self.block_loss.shape[2]}",
                "subtitle": {"text": "; ".join(filter(None, (self.partial, said)))},
            },
            margin={"t": 100, "b": 110},
            legend=LEGEND_BELOW,
        )
        return figures.style(fig, template)

    def block_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Where along depth the surrogates lose the path, after training."""
        import plotly.graph_objects as go

        from strobe.core import figures
        from strobe.probes.geometry.figures import LEGEND_BELOW

        fig, palette = go.Figure(), figures.colors(template)
        blocks = np.arange(self.block_loss.shape[2])
        for i, count in enumerate(self.k):
            for kind in (1, 0):
                if not np.isnan(self.block_loss[i, kind]).all():
                    fig.add_scatter(
                        x=blocks, y=self.block_loss[i, kind], mode="lines+markers",
                        name=f"k = {count}" + (", control: drawn at random" if kind else f" {self.assignments[i]}"),
                        line={
                            "color": figures.CONTROL_COLOR if kind else palette[i % len(palette)],
                            "dash": figures.DASHES[i % len(figures.DASHES)],
                        },
                    )  # fmt: skip
        fig.update_xaxes(title_text="after block (from 0)", dtick=max(1, len(blocks) // 16))
        fig.update_yaxes(title_text="residual stream missed (share of scatter)", rangemode="tozero")
        fig.update_layout(
            title_text="Where shared blocks lose the model's path", margin={"b": 110}, legend=LEGEND_BELOW
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per surrogate, kind and point of the training."""
        import pandas

        i, kind, point = (a.ravel() for a in np.indices(self.loss.shape))
        return pandas.DataFrame(
            {
                "k": np.array(self.k)[i],
                "groups": np.where(kind == 0, "contiguous", "random"),
                "step": self.steps[point],
                "loss": self.loss.ravel(),
                "kl": self.kl.ravel(),
            }
        )

    def summary(self) -> str:
        """For each k what is missed before and after training, beside the control."""
        lines = [f"Block-recurrent surrogates of {self.block_loss.shape[2]} blocks, {int(self.steps[-1])} steps"]
        for i, count in enumerate(self.k):
            (own, other), (kl, kl_other) = self.loss[i], self.kl[i]
            control = (
                "no other drawing exists"
                if np.isnan(other).all()
                else f"drawn at random {self.control_assignments[i]} {other[-1]:.3f}, KL {kl_other[-1]:.3g}"
            )
            lines.append(
                f"  k = {count} {self.assignments[i]}: missed {own[0]:.3f} untrained, {own[-1]:.3f} trained, KL "
                f"{kl[-1]:.3g} nats; control: {control}"
            )
        lines += [f"  {self.partial}"] if self.partial else []
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
