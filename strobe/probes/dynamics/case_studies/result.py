"""`CaseStudy`: a small experiment of the literature done again, what it measured and whether the effect came."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import figures
from strobe.core.result import Result
from strobe.core.tokens import escape_plotly

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

CONTROL = "(control)"
"""Ends the name of a curve that is a control."""


@dataclass(frozen=True)
class CaseStudy(Result):
    """What was trained, what was measured on it, and how that compares with the paper.

    `name`: its short name. `paper`: where the experiment is from. `claim`: what the paper says. `found`: what came out
    here, also where it did not. `ours`: what was done differently. `tables`: ``title``, ``columns``, ``rows`` and a
    ``note`` that names the control, as in a model's card. `curves`: [n, 2] arrays of x and y by name; a name that ends
    with "(control)" is one. `weights`: the trained networks' arrays by name. `seconds`: of one thread's time, all of
    its trainings together.
    """

    name: str
    title: str
    paper: str
    claim: str
    found: str
    ours: str
    tables: list[dict[str, Any]]
    curves: dict[str, np.ndarray]
    x_title: str
    y_title: str
    weights: dict[str, np.ndarray]
    seconds: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, curve in self.curves.items():
            if curve.ndim != 2 or curve.shape[1] != 2:
                raise ValueError(f"the curve {name!r} has the shape {curve.shape}; it has to be [n, 2], x and y")

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The curves, controls in grey."""
        import plotly.graph_objects as go

        fig, colours, seen = go.Figure(), figures.colors(template), 0
        for name, curve in self.curves.items():
            is_control = name.endswith(CONTROL)
            look = {"color": figures.CONTROL_COLOR, "dash": "dot"} if is_control else {}
            if not is_control:
                look = {"color": colours[seen % len(colours)], "dash": figures.DASHES[seen % len(figures.DASHES)]}
                seen += 1
            few = len(curve) <= 40
            fig.add_scatter(
                x=curve[:, 0],
                y=curve[:, 1],
                name=escape_plotly(name),
                mode="lines+markers" if few else "lines",
                line={"width": 2 if few else 1, **look},
            )
        fig.update_layout(
            title={"text": escape_plotly(self.title), "subtitle": {"text": escape_plotly(self.paper)}},
            margin={"t": 84},
            height=460,
            legend={"y": -0.18, "yanchor": "top", "x": 0, "xanchor": "left"},
        )
        fig.update_xaxes(title_text=self.x_title)
        fig.update_yaxes(title_text=self.y_title)
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """The curves in long form: name, x, y."""
        import pandas as pd

        parts = [pd.DataFrame({"curve": name, "x": c[:, 0], "y": c[:, 1]}) for name, c in self.curves.items()]
        return pd.concat(parts, ignore_index=True)

    def card(self) -> str:
        """The study as Markdown: claim, what was found, tables, what is ours."""
        lines = [
            f"**The paper.** {self.paper}. {self.claim}",
            "",
            f"**Here.** {self.found}",
            "",
            f"**Ours, not the paper's.** {self.ours}",
        ]
        for table in self.tables:
            lines += ["", f"**{table['title']}**", "", f"| {' | '.join(table['columns'])} |"]
            lines += ["|" + "---|" * len(table["columns"])]
            lines += [f"| {' | '.join(map(_cell, row))} |" for row in table["rows"]]
            lines += ["", table["note"]]
        command = self.provenance.settings.get("command")
        made = f"Made by `{command}`; t" if command else "T"
        return "\n".join([*lines, "", f"{made}rained in {self.seconds:.0f} seconds of one thread's time."])

    def summary(self) -> str:
        """Title, claim, finding, tables in lines, provenance."""
        lines = [
            f"{self.title} ({self.paper})",
            f"  paper: {self.claim}",
            f"  here: {self.found}",
            f"  ours: {self.ours}",
        ]
        for table in self.tables:
            lines.append(f"  {table['title']}: {', '.join(table['columns'])}")
            lines += [f"    {', '.join(map(_cell, row))}" for row in table["rows"]]
        lines.append(f"  control: {self.provenance.control}")
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
