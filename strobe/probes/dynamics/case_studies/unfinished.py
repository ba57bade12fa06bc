"""`UnfinishedStudy`: how far the trainings of a case study had come when it was stopped."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from strobe.core import figures
from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.core.tokens import escape_plotly

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# Points of a loss curve: more is not seen.
_POINTS = 200


@dataclass(frozen=True)
class UnfinishedStudy(Result):
    """What was kept of a study that was stopped: no measurement, as those come after the trainings.

    `name`: the study's. `made`, `planned`: updates of each training that has begun, by its name; `ended`: the names of
    those that are done (one may end before all that were planned). `losses`: [n, 2] arrays of update and mean training
    loss since the point before.
    """

    name: str
    made: dict[str, int]
    planned: dict[str, int]
    ended: list[str]
    losses: dict[str, np.ndarray]
    seconds: float

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Training loss against update, one curve a training."""
        import plotly.graph_objects as go

        fig, colours = go.Figure(), figures.colors(template)
        for i, (name, curve) in enumerate(self.losses.items()):
            look = {"color": colours[i % len(colours)], "dash": figures.DASHES[i % len(figures.DASHES)], "width": 1}
            fig.add_scatter(x=curve[:, 0], y=curve[:, 1], name=escape_plotly(name), mode="lines", line=look)
        note = f"{len(self.ended)} of {len(self.made)} trainings that have begun are done; nothing is measured yet"
        fig.update_layout(
            title={"text": f"Case study {escape_plotly(self.name)}, stopped", "subtitle": {"text": note}},
            margin={"t": 84},
            height=460,
            legend={"y": -0.18, "yanchor": "top", "x": 0, "xanchor": "left"},
        )
        fig.update_xaxes(title_text="update")
        fig.update_yaxes(title_text="training loss", type="log")
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """The loss curves in long form: training, update, loss."""
        import pandas as pd

        parts = [
            pd.DataFrame({"training": name, "update": c[:, 0], "loss": c[:, 1]}) for name, c in self.losses.items()
        ]
        return pd.concat(parts, ignore_index=True)

    def card(self) -> str:
        """How far each training is, as Markdown."""
        lines = [
            f"**Stopped** after {self.seconds:.0f} seconds of one thread's time, before anything was measured. Started "
            "again, it goes on from here and ends as if it had not been stopped.",
            "",
            "| training | updates made | planned | |",
            "|---|---|---|---|",
        ]
        for name, made in self.made.items():
            lines.append(f"| {name} | {made} | {self.planned[name]} | {'done' if name in self.ended else ''} |")
        return "\n".join(lines)

    def summary(self) -> str:
        """The same as text, and the provenance."""
        lines = [f"Case study {self.name}, stopped after {self.seconds:.0f} seconds of one thread's time"]
        for name, made in self.made.items():
            done = ", done" if name in self.ended else ""
            lines.append(f"  {name}: {made} of {self.planned[name]} updates{done}")
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def so_far(name: str, folder: str | Path) -> UnfinishedStudy | None:
    """What `folder` keeps of the study `name`, or None where it keeps nothing."""
    from strobe.probes.dynamics.kept_run import kept_in

    kept = kept_in(folder)
    if not kept:
        return None
    return UnfinishedStudy(
        name=name,
        made={k["name"]: k["step"] for k in kept},
        planned={k["name"]: k["updates"] for k in kept},
        ended=[k["name"] for k in kept if k["finished"]],
        losses={k["name"]: _thinned(np.array(k["losses"])) for k in kept},
        seconds=float(sum(k["seconds"] for k in kept)),
        provenance=Provenance(model=f"case study {name}, unfinished", control="none yet: nothing is measured"),
    )


def _thinned(losses: np.ndarray) -> np.ndarray:
    ends = np.unique(np.linspace(0, len(losses), min(_POINTS, len(losses)) + 1).astype(int))
    means = [losses[a:b].mean() for a, b in pairwise(ends)]
    return np.stack([ends[1:], means], 1).astype(np.float64)
