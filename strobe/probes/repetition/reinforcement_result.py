"""`SelfReinforcement`: TP, IP and WR of each copy of a repeated sentence, beside random and shuffled ones."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_PANELS = (
    ("tp", "TP: token probability", "mean probability"),
    ("ip", "IP: more likely than at first", "share of tokens"),
    ("wr", "WR: most likely of all", "share of tokens"),
)


@dataclass(frozen=True)
class SelfReinforcement(Result):
    """`tp`, `ip`, `wr` [run, copies], copy 0 the first; `runs`: the sentence and its two controls.

    `n_tokens`: how many tokens of a copy are scored, over all `n_sentences`. `trained_copies`: how many copies of the
    longest sentence fit into the length that the model was trained on.
    """

    runs: tuple[str, ...]
    tp: Float[np.ndarray, "run copies"]
    ip: Float[np.ndarray, "run copies"]
    wr: Float[np.ndarray, "run copies"]
    n_tokens: int
    n_sentences: int
    trained_copies: int

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        asked = len(self.provenance.settings["sentences"])
        n, copies = self.tp.shape[1], self.provenance.settings["copies"]
        if n < copies:
            return f"cut short after {n} of {copies} copies of the first of {asked} sentences"
        return "" if self.n_sentences == asked else f"cut short after {self.n_sentences} of {asked} sentences"

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The three measures against the number of copies seen, each with its controls."""
        from plotly.subplots import make_subplots

        from strobe.core import figures

        fig = make_subplots(rows=1, cols=3, subplot_titles=[title for _, title, _ in _PANELS], horizontal_spacing=0.1)
        copies = np.arange(1, self.tp.shape[1] + 1)
        for column, (name, _, unit) in enumerate(_PANELS, 1):
            for i, run in enumerate(self.runs):
                color = figures.colors(template)[0] if i == 0 else figures.CONTROL_COLOR
                line = {"color": color, "dash": figures.DASHES[i], "width": 2 if i == 0 else 1}
                fig.add_scatter(
                    x=copies, y=getattr(self, name)[i], mode="lines", name=run, legendgroup=run,
                    showlegend=column == 1, line=line, row=1, col=column,
                )  # fmt: skip
            if self.trained_copies < len(copies):
                where: dict[str, int] = {"row": 1, "col": column}
                fig.add_vline(x=self.trained_copies + 0.5, line={"width": 1, "dash": "dot"}, **where)  # pyright: ignore[reportArgumentType]
            fig.update_xaxes(title_text="copy", row=1, col=column)
            fig.update_yaxes(title_text=unit, range=[0, 1.02], row=1, col=column)
        beyond = (
            "; right of the dotted line: longer than it was trained on" if self.trained_copies < len(copies) else ""
        )
        subtitle = f"{self.n_sentences} sentences, {self.n_tokens} tokens; grey: controls{beyond}"
        subtitle = "; ".join(filter(None, (self.partial, subtitle)))
        fig.update_layout(
            title={"text": "Self-reinforcement of a repeated sentence", "subtitle": {"text": subtitle}},
            margin={"t": 110}, legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.22, "yanchor": "top"},
        )  # fmt: skip
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per run and copy (from 1): tp, ip, wr."""
        import pandas

        run, copy = (a.ravel() for a in np.indices(self.tp.shape))
        columns = {name: getattr(self, name).ravel() for name, *_ in _PANELS}
        return pandas.DataFrame({"run": [self.runs[i] for i in run], "copy": copy + 1, **columns})

    def summary(self) -> str:
        """Each measure at the first, second and last copy."""
        last = self.tp.shape[1] - 1
        lines = [f"{self.n_sentences} sentences of {self.n_tokens} scored tokens, {last + 1} copies of each"]
        lines += [f"  {self.partial}"] if self.partial else []
        for i, run in enumerate(self.runs):
            said = "; ".join(
                f"{name.upper()} {v[i, 0]:.3f}, {v[i, 1]:.3f}, ... {v[i, last]:.3f}"
                for name, v in (("tp", self.tp), ("ip", self.ip), ("wr", self.wr))
            )
            lines.append(f"  {run}: {said}")
        if self.trained_copies <= last:
            lines.append(f"  the model was trained on a length of {self.trained_copies} copies")
        return "\n".join(lines)
