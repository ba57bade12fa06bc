"""Draws depth as time: paths of a repeated block, exponents over depth, exchanged blocks."""

from typing import TYPE_CHECKING

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly, show
from strobe.probes.fixed_points.figures import marker_of, trace

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.fixed_points.depth_orbit_result import DepthOrbit
    from strobe.probes.fixed_points.exponents_in_depth import LayerExponents
    from strobe.probes.fixed_points.swaps_in_depth import LayerSwaps


def paths(r: "DepthOrbit", dimensions: int, template: str) -> "plotly.graph_objects.Figure":
    """See `DepthOrbit.figure`."""
    import plotly.graph_objects as go

    if dimensions not in (2, 3):
        raise ValueError(f"a portrait in {dimensions} dimensions was asked for; give 2 or 3")
    fig, colours = go.Figure(), figures.colors(template)
    for i, kind in enumerate(dict.fromkeys(r.kinds)):
        chosen = [u for u, k in enumerate(r.kinds) if k == kind]
        gap = np.full((1, dimensions), np.nan)
        rows = np.concatenate([x for u in chosen for x in (r.paths[:, u, :dimensions], gap)])
        trace(
            fig, rows, dimensions, mode="lines+markers", name=f"{kind} ({len(chosen)})",
            marker=marker_of(i, colours, dimensions) | {"size": 3},
            line={"width": 1, "color": colours[i % len(colours)]},
        )  # fmt: skip
    ends = r.paths[-1, :, :dimensions]
    words = [f"{u}: {escape_plotly(show(t, 12))}" for u, t in enumerate(r.units)]
    trace(
        fig, ends, dimensions, mode="markers", name="last", customdata=words,
        marker={"symbol": "x", "size": 7 if dimensions == 2 else 4, "color": colours[6]},
        hovertemplate="%{customdata}<extra></extra>",
    )  # fmt: skip
    titles = [f"PC {i + 1} ({r.shares[i]:.0%} of variance)" for i in range(dimensions)]
    if dimensions == 2:
        fig.update_xaxes(title_text=titles[0])
        fig.update_yaxes(title_text=titles[1])
    else:
        fig.update_scenes({f"{a}axis": {"title": {"text": t}} for a, t in zip("xyz", titles, strict=True)})
    note = f"{len(r.speeds)} times; {r.agreement:.0%} of the tokens do the same from another start (control)"
    note = "; ".join(filter(None, (r.partial, note)))
    return _titled(fig, f"Depth as time: {escape_plotly(r.system)}", note, 480, template)


def speeds(r: "DepthOrbit", template: str) -> "plotly.graph_objects.Figure":
    """See `DepthOrbit.speed_figure`. A step of exactly 0 has no place on the axis and ends its line."""
    import plotly.graph_objects as go

    fig, colours = go.Figure(), figures.colors(template)
    seen: list[str] = []
    for u, kind in enumerate(r.kinds):
        i = list(dict.fromkeys(r.kinds)).index(kind)
        fig.add_scatter(
            x=np.arange(1, len(r.speeds) + 1),
            y=np.where(r.speeds[:, u] > 0, r.speeds[:, u], np.nan),
            mode="lines",
            name=kind,
            legendgroup=kind,
            showlegend=kind not in seen,
            line={"color": colours[i % len(colours)], "width": 1, "dash": figures.DASHES[i % len(figures.DASHES)]},
        )
        seen.append(kind)
    note = "; ".join(filter(None, (r.partial, "one line a token")))
    fig.update_xaxes(title_text="times applied")
    fig.update_yaxes(title_text="step, over the first step", type="log")
    return _titled(fig, f"How far a token still moves: {escape_plotly(r.system)}", note, 380, template)


def exponents(r: "LayerExponents", template: str) -> "plotly.graph_objects.Figure":
    """See `LayerExponents.figure`."""
    import plotly.graph_objects as go

    fig, colours = go.Figure(), figures.colors(template)
    low, high = float(r.shuffled.min()), float(r.shuffled.max())
    fig.add_hrect(
        y0=low, y1=high, fillcolor=figures.CONTROL_COLOR, opacity=0.3, line_width=0,
        annotation_text="largest, blocks in random order (control)",
    )  # fmt: skip
    for i, (position, token) in enumerate(zip(r.positions, r.tokens, strict=True)):
        fig.add_scatter(
            x=np.arange(r.exponents.shape[1]),
            y=r.exponents[i],
            mode="lines",
            name=f"{position}: {escape_plotly(show(token, 12))}",
            line={"color": colours[i % len(colours)], "dash": figures.DASHES[i % len(figures.DASHES)]},
        )
    fig.update_xaxes(title_text="rank")
    fig.update_yaxes(title_text="finite-time exponent, nats a block")
    note = f"{len(r.stretch)} blocks of {escape_plotly(r.provenance.model)}; above 0 a disturbance grows"
    return _titled(fig, "Disturbances on their way through the blocks", note, 400, template)


def swaps(r: "LayerSwaps", template: str) -> "plotly.graph_objects.Figure":
    """See `LayerSwaps.figure`."""
    from plotly.subplots import make_subplots

    fig = make_subplots(1, 2, subplot_titles=("swapped", "row does the column's work"), horizontal_spacing=0.12)
    null, n = float(np.median(r.shuffled)), len(r.swapped)
    for column, values in enumerate((r.swapped, r.replaced), 1):
        fig.add_heatmap(
            z=values, x=list(range(n)), y=list(range(n)), zmin=0, zmax=null, row=1, col=column,
            colorscale=figures.SEQUENTIAL_REVERSED, showscale=column == 2,
            colorbar={"title": {"text": "KL, nats"}},
            hovertemplate="blocks %{y} and %{x}: %{z:.4g} nats<extra></extra>",
        )  # fmt: skip
        figures.missing_cells(fig, values, row=1, col=column)
    fig.update_xaxes(title_text="block", dtick=1)
    fig.update_yaxes(title_text="block", dtick=1, autorange="reversed")
    note = f"full colour: the median of blocks in random order, {null:.3g} nats (control)"
    if r.neighbours_tried:
        runs = ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in r.groups())
        note += f"; runs alike in work: {runs}"
    note = "; ".join(filter(None, (r.partial, note)))
    return _titled(fig, f"Exchanging the blocks of {escape_plotly(r.provenance.model)}", note, 420, template)


def _titled(
    fig: "plotly.graph_objects.Figure", title: str, note: str, height: int, template: str
) -> "plotly.graph_objects.Figure":
    fig.update_layout(
        title={"text": title, "subtitle": {"text": note}},
        margin={"t": 96},
        height=height,
        legend={"y": -0.2, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    return figures.style(fig, template)
