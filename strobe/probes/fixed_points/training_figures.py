"""Draws fixed points over training: an animation of portraits, and counts by saddle index."""

from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly
from strobe.probes.fixed_points.figures import axes_of, marker_of

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.fixed_points.over_training import FixedPointsOverTraining

# Saddles above this index are drawn together.
_HIGHEST = 3


def animation(r: "FixedPointsOverTraining", template: str) -> "plotly.graph_objects.Figure":
    """See `FixedPointsOverTraining.figure`. Every frame has the same traces, as Plotly's animations need."""
    import plotly.graph_objects as go

    last = r.found[-1]
    centre, v, share = axes_of(last.points, last.trajectories.reshape(-1, last.trajectories.shape[-1]), 2)
    frames = [
        go.Frame(name=str(step), data=_traces(one, centre, v, template))
        for step, one in zip(r.steps, r.found, strict=True)
    ]
    fig = go.Figure(data=frames[-1].data, frames=frames)
    every = np.concatenate([np.concatenate([one.points, one.trajectories.reshape(-1, len(centre))]) for one in r.found])
    reach = 1.05 * float(np.abs((every - centre) @ v.T).max())
    fig.update_xaxes(title_text=f"PC 1 of the last points ({share[0]:.0%} of variance)", range=[-reach, reach])
    fig.update_yaxes(title_text=f"PC 2 of the last points ({share[1]:.0%} of variance)", range=[-reach, reach])
    first = r.found[0]
    note = f"{escape_plotly(last.held)}; control, step {r.steps[0]}: {len(first.points)} fixed points{_cut_short(r)}"
    fig.update_layout(
        title={
            "text": f"Fixed points of {escape_plotly(r.provenance.model)} while it learned",
            "subtitle": {"text": note},
        },
        margin={"t": 84, "b": 150},
        height=600,
        legend={"y": 1.0, "yanchor": "top", "x": 1.02, "xanchor": "left", "orientation": "v"},
        sliders=[_slider(r)],
        updatemenus=[_buttons()],
    )
    return figures.style(fig, template)


def counts(r: "FixedPointsOverTraining", template: str) -> "plotly.graph_objects.Figure":
    """See `FixedPointsOverTraining.counts_figure`."""
    import plotly.graph_objects as go

    fig, colours = go.Figure(), figures.colors(template)
    for i, name in enumerate(_names()):
        fig.add_scatter(
            x=r.steps,
            y=[int(_chosen(one, i).sum()) for one in r.found],
            mode="lines+markers",
            name=name,
            line={"color": colours[i], "dash": figures.DASHES[i]},
            marker={"symbol": figures.SYMBOLS[i]},
        )
    fig.update_xaxes(title_text="training step")
    fig.update_yaxes(title_text="fixed points", rangemode="tozero")
    note = f"{escape_plotly(r.found[-1].held)}; control: step {r.steps[0]}{_cut_short(r)}"
    fig.update_layout(
        title={"text": "Fixed points by saddle index while it learned", "subtitle": {"text": note}},
        margin={"t": 84},
        height=380,
        legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    return figures.style(fig, template)


def _cut_short(r: "FixedPointsOverTraining") -> str:
    return f"; {r.partial}" if r.partial else ""


def _names() -> list[str]:
    return ["stable or marginal", *(f"saddle of index {i}" for i in range(1, _HIGHEST)), f"index {_HIGHEST} or more"]


def _chosen(one: Any, i: int) -> np.ndarray:
    return one.index >= _HIGHEST if i == _HIGHEST else one.index == i


def _traces(one: Any, centre: np.ndarray, v: np.ndarray, template: str) -> list[Any]:
    import plotly.graph_objects as go

    paths, colours = one.trajectories, figures.colors(template)
    gap = np.full((len(paths), 1, 2), np.nan)
    lines = np.concatenate([(paths - centre) @ v.T, gap], 1).reshape(-1, 2)
    grey = {"color": figures.CONTROL_COLOR, "width": 1}
    traces: list[Any] = [go.Scatter(x=lines[:, 0], y=lines[:, 1], mode="lines", name="trajectories", line=grey)]
    for i, name in enumerate(_names()):
        rows = (one.points[_chosen(one, i)] - centre) @ v.T
        traces.append(
            go.Scatter(x=rows[:, 0], y=rows[:, 1], mode="markers", name=name, marker=marker_of(i, colours, 2))
        )
    return traces


def _slider(r: "FixedPointsOverTraining") -> dict[str, Any]:
    show = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}, "transition": {"duration": 0}}
    steps = [{"label": str(s), "method": "animate", "args": [[str(s)], show]} for s in r.steps]
    return {"active": len(steps) - 1, "currentvalue": {"prefix": "training step "}, "pad": {"t": 50}, "steps": steps}


def _buttons() -> dict[str, Any]:
    play = {"frame": {"duration": 700, "redraw": True}, "fromcurrent": False, "transition": {"duration": 0}}
    stop = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}}
    return {
        "type": "buttons",
        "direction": "left",
        "x": 0,
        "y": -0.32,
        "xanchor": "left",
        "buttons": [
            {"label": "Play", "method": "animate", "args": [None, play]},
            {"label": "Stop", "method": "animate", "args": [[None], stop]},
        ],
    }
