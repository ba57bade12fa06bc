"""`CodaLens`: ranks of the answer after every block of a depth-recurrent model, read at once or through the coda."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

LENSES = ("logit lens", "coda lens")


@dataclass(frozen=True)
class CodaLens(Result):
    """Axes: lens as in `LENSES`; what is followed, as in `follow` (first the model's own answer at each token); state;
    time.

    A state is the stream after block `blocks` (from 1) of "prelude", "core" or "coda" (`sections`) in step `steps` of
    the core (0 before it, one more than there are after it). `rank`: of what is followed, from 1; NaN for the coda lens
    of a stream that the coda made. `control`: the same of scrambled streams of equal norm. `answers` [time]: the texts
    of the model's answers.
    """

    tokens: list[str]
    follow: list[str]
    answers: list[str]
    sections: list[str]
    blocks: list[int]
    steps: list[int]
    rank: Float[np.ndarray, "lens follow state time"]
    control: Float[np.ndarray, "lens follow state time"]

    def of(self, values: np.ndarray, follow: str | None, position: int | None) -> Float[np.ndarray, "lens state"]:
        """`values` (`rank` or `control`) of one thing followed, at a token or as the mean over all (None).

        Raises ValueError for what was not followed or a position the text does not have.
        """
        if follow is not None and follow not in self.follow:
            raise ValueError(f"{follow!r} was asked for; followed were {', '.join(map(repr, self.follow))}")
        n = len(self.tokens)
        if position is not None and not -n <= position < n:
            raise ValueError(f"position {position} was asked for; the text has {n} tokens; give one in 0..{n - 1}")
        one = values[:, 0 if follow is None else self.follow.index(follow)]
        return one.mean(-1) if position is None else one[..., position]

    def figure(
        self, follow: str | None = None, position: int | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Rank against the core's step, a line for each of its blocks, by both lenses, with the control."""
        from plotly.subplots import make_subplots

        from strobe.core import figures

        fig = make_subplots(rows=1, cols=2, shared_yaxes=True, subplot_titles=LENSES, horizontal_spacing=0.04)
        ranks, control = (self.of(values, follow, position) for values in (self.rank, self.control))
        sections, blocks, steps = np.array(self.sections), np.array(self.blocks), np.array(self.steps)
        palette = figures.colors(template)
        kinds = [(s, int(b)) for s, b in dict.fromkeys(zip(self.sections, self.blocks, strict=True))]
        cores = [kind for kind in kinds if kind[0] == "core"]
        for section, block in kinds:
            here = (sections == section) & (blocks == block)
            core = section == "core"
            i = cores.index((section, block)) if core else 0
            color = palette[i % len(palette)] if core else palette[-2]
            name = f"R{block}" if core else f"{section} {block}"
            symbol = figures.SYMBOLS[i % len(figures.SYMBOLS)] if core else ("x" if section == "coda" else "star")
            for lens in range(2):
                fig.add_scatter(
                    x=steps[here], y=ranks[lens, here], name=name, legendgroup=name, showlegend=lens == 0,
                    mode="lines+markers" if core else "markers", marker={"symbol": symbol, "size": 8, "color": color},
                    line={"color": color, "dash": figures.DASHES[i % len(figures.DASHES)]}, row=1, col=lens + 1,
                )  # fmt: skip
        core_steps = np.unique(steps[sections == "core"])
        for lens in range(2):
            level = [control[lens, (sections == "core") & (steps == step)].mean() for step in core_steps]
            fig.add_scatter(
                x=core_steps, y=level, name="control: scrambled streams", legendgroup="control", mode="lines",
                line={"color": figures.CONTROL_COLOR, "dash": "dot"}, showlegend=lens == 0, row=1, col=lens + 1,
            )  # fmt: skip
        where = "mean over tokens" if position is None else f"after token {position % len(self.tokens)}"
        fig.update_yaxes(type="log", dtick=1)
        fig.update_yaxes(title_text="rank (1 is first)", row=1, col=1)
        fig.update_xaxes(title_text="step of the core", dtick=max(1, len(core_steps) // 12))
        fig.update_layout(
            title={
                "text": f"Rank of {self.follow[0] if follow is None else follow} by block and step",
                "subtitle": {"text": f"{where}; R1, R2, ... are the core's blocks"},
            },
            legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.16, "yanchor": "top"},
            margin={"t": 96, "b": 110},
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per lens, thing followed, state and token."""
        import pandas

        lens, follow, state, time = (a.ravel() for a in np.indices(self.rank.shape))
        return pandas.DataFrame(
            {
                "lens": np.array(LENSES, dtype=object)[lens],
                "follow": np.array(self.follow, dtype=object)[follow],
                "section": np.array(self.sections, dtype=object)[state],
                "block": np.array(self.blocks)[state],
                "step": np.array(self.steps)[state],
                "position": time,
                "token": np.array(self.tokens, dtype=object)[time],
                "rank": self.rank.ravel(),
                "rank_control": self.control.ravel(),
            }
        )

    def summary(self) -> str:
        """Mean ranks of the model's answer at the first and last step, block by block, beside the control."""
        ranks, control = (self.of(values, None, None) for values in (self.rank, self.control))
        last = max(step for section, step in zip(self.sections, self.steps, strict=True) if section == "core")
        lines = [f"Mean rank of {self.follow[0]} over {len(self.tokens)} tokens, {last} steps of the core"]
        for state, (section, block, step) in enumerate(zip(self.sections, self.blocks, self.steps, strict=True)):
            if section == "core" and step in (1, last):
                said = [f"{name} {ranks[i, state]:.1f} ({control[i, state]:.1f})" for i, name in enumerate(LENSES)]
                lines.append(f"  step {step}, R{block}: {', '.join(said)}")
        lines.append("  in brackets: scrambled streams, the control")
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
