"""`GreedyLoop`: the loop a greedy continuation falls into, as a cycle of the carry; or that there is none."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

NOT_FOLLOWED = "its carry was not followed: the run was cut short"


@dataclass(frozen=True)
class GreedyLoop(Result):
    """`prompt`, `new`: texts of tokens. `period`: of the loop, in tokens; 0 where there is none. `onset`: the new token
    with which the first turn begins, -1 for none.

    `layers`: those with a recurrent carry, `mixers` what they are. `return_distance` [layer, new]: how far the memory
    is after each new token from where it was one period before, over its norm; NaN without a loop. `control`: the same
    along a sampled continuation. `spectral_radius` [layer]: of the map of one turn, with the layer's input held to the
    loop's; the largest is that of the whole model. `margin` [new]: nats between the logit of the token taken and the
    next best. `notes`: by layer, why a number is not there.
    """

    prompt: list[str]
    new: list[str]
    period: int
    onset: int
    layers: Int[np.ndarray, " layer"]
    mixers: list[str]
    return_distance: Float[np.ndarray, "layer new"]
    control: Float[np.ndarray, "layer new"]
    spectral_radius: Float[np.ndarray, " layer"]
    margin: Float[np.ndarray, " new"]
    notes: dict[str, str]

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        asked = int(self.provenance.settings["max_new_tokens"])
        if len(self.new) < asked:
            return f"cut short after {len(self.new)} of {asked} new tokens"
        missing = sum(note == NOT_FOLLOWED for note in self.notes.values())
        n = len(self.layers)
        return f"cut short after the carries of {n - missing} of {n} layers" if missing else ""

    @property
    def unit(self) -> str:
        """The text of one turn; empty without a loop."""
        return "".join(self.new[self.onset : self.onset + self.period])

    @property
    def verdict(self) -> str:
        """The answer in a sentence."""
        if not self.period:
            return f"no loop in {len(self.new)} tokens"
        copies = (len(self.new) - self.onset) // self.period
        return f"a loop of period {self.period} from new token {self.onset} on ({copies} whole copies)"

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """How near the carry comes to where it was one period before, layer by layer, and on a sampled text."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig, at, palette = go.Figure(), np.arange(len(self.new)), figures.colors(template)
        for i, layer in enumerate(self.layers.tolist() if self.period else []):
            if self.notes.get(str(layer)) == NOT_FOLLOWED:
                continue
            style = {"dash": figures.DASHES[i % len(figures.DASHES)]}
            fig.add_scatter(
                x=at, y=self.control[i], mode="lines", name="sampled text", legendgroup="sampled", showlegend=i == 0,
                line={"color": figures.CONTROL_COLOR, "width": 1, **style},
            )  # fmt: skip
            fig.add_scatter(
                x=at, y=self.return_distance[i], mode="lines", name=f"block {layer} ({self.mixers[i]})",
                line={"color": palette[i % len(palette)], "width": 2, **style},
            )  # fmt: skip
        if self.period:
            fig.add_vline(x=self.onset + self.period, line={"width": 1, "dash": "dot"})
            fig.update_yaxes(type="log")
        fig.update_xaxes(title_text="new token", range=[0, len(self.new)])
        fig.update_yaxes(title_text=f"‖h(t) − h(t−{self.period})‖ / ‖h(t)‖")
        known = self.spectral_radius[np.isfinite(self.spectral_radius)]
        radius = f"; largest spectral radius of a turn {known.max():.3g}" if known.size else ""
        empty = "" if len(self.layers) else "; no layer has a recurrent carry"
        said = "; ".join(filter(None, (self.verdict + radius + empty, self.partial)))
        fig.update_layout(
            title={"text": "A greedy loop as a cycle of the carry", "subtitle": {"text": said}}, margin={"t": 84},
            legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.18, "yanchor": "top"},
        )  # fmt: skip
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per new token and layer (per token where none is recurrent): token, margin, distance, control."""
        import pandas

        nothing = np.full((1, len(self.new)), np.nan)
        layers = self.layers.tolist() or [-1]
        distance, control = (x if len(x) else nothing for x in (self.return_distance, self.control))
        rows = [
            (t, token, self.margin[t], layer, distance[i, t], control[i, t])
            for i, layer in enumerate(layers)
            for t, token in enumerate(self.new)
        ]
        return pandas.DataFrame(rows, columns=["index", "token", "margin", "layer", "return_distance", "control"])

    def summary(self) -> str:
        """The verdict, and for each layer how far the carry comes back and how fast a disturbance dies."""
        lines = list(filter(None, (self.verdict, self.partial)))
        if self.period:
            lines.append(
                f"  unit {self.unit!r}; smallest margin in the loop {self.margin[self.onset :].min():.3g} nats"
            )
            for i, layer in enumerate(self.layers.tolist()):
                if self.notes.get(str(layer)) == NOT_FOLLOWED:
                    continue
                last, null = self.return_distance[i, -1], np.nanmedian(self.control[i])
                lines.append(
                    f"  block {layer} ({self.mixers[i]}): distance to one period before {last:.3g} at the end (sampled "
                    f"text: median {null:.3g}); spectral radius {self.spectral_radius[i]:.4g}"
                )
        return "\n".join([*lines, *(f"  block {layer}: {note}" for layer, note in self.notes.items())])
