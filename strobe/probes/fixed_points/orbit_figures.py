"""Draws what is on the way between fixed points: cycles, basins, unstable manifolds, lines and rings."""

from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly
from strobe.probes.fixed_points.figures import axes_of, marker_of, trace

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.fixed_points.basin import Basins
    from strobe.probes.fixed_points.continuum import Continua
    from strobe.probes.fixed_points.k_cycles import KCycles
    from strobe.probes.fixed_points.manifold import UnstableManifolds


def cycles(r: "KCycles", dimensions: int, template: str) -> "plotly.graph_objects.Figure":
    """See `KCycles.figure`."""
    fig, place, titles = _begin(r.points, r.points, dimensions)
    colours = figures.colors(template)
    for i, k in enumerate(r.searched):
        chosen = np.nonzero(r.periods == k)[0]
        closed = [np.concatenate([r.points[r.of == c], r.points[r.of == c][:1]]) for c in chosen]
        trace(
            fig,
            _lines([place(row) for row in closed], dimensions),
            dimensions,
            mode="lines+markers",
            name=f"length {k} ({len(chosen)})",
            marker=marker_of(i, colours, dimensions),
            line={"color": colours[i % len(colours)], "width": 1, "dash": figures.DASHES[i % len(figures.DASHES)]},
        )
    note = escape_plotly(r.held)
    if r.control is not None:
        note += f"; control: {len(r.control.periods)} cycles"
    return _finish(fig, f"KCycles of {escape_plotly(r.system)}", _said(r, note), titles, dimensions, template)


def basins(r: "Basins", dimensions: int, template: str) -> "plotly.graph_objects.Figure":
    """See `Basins.figure`."""
    fig, place, titles = _begin(r.attractors, r.starts, dimensions)
    colours, ends = figures.colors(template), r.end_names
    for i, label in enumerate(np.unique(r.labels)[::-1]):
        rows = np.nonzero(r.labels == label)[0]
        marker = marker_of(i, colours, dimensions) | {"size": 5 if dimensions == 2 else 3}
        trace(
            fig,
            place(r.starts[rows]),
            dimensions,
            mode="markers",
            name=f"{ends(int(label))} ({len(rows) / len(r.labels):.0%})",
            marker=marker,
            customdata=[f"to {ends(int(label))}, after {s} steps" for s in r.steps[rows]],
            hovertemplate="%{customdata}<extra></extra>",
        )
    trace(
        fig,
        place(r.attractors),
        dimensions,
        mode="markers",
        name="stable points",
        marker={"symbol": "cross", "size": 11 if dimensions == 2 else 6, "color": colours[6]},
    )
    note = f"{escape_plotly(r.held)}; {r.agreement:.0%} end at the stable point nearest to them (control)"
    return _finish(fig, f"Where carries of {escape_plotly(r.system)} end", _said(r, note), titles, dimensions, template)


def manifolds(r: "UnstableManifolds", dimensions: int, template: str) -> "plotly.graph_objects.Figure":
    """See `UnstableManifolds.figure`."""
    fig, place, titles = _begin(np.concatenate([r.attractors, r.saddles]), r.attractors, dimensions)
    colours = figures.colors(template)
    for i, index in enumerate(np.unique(r.indices)):
        chosen = np.nonzero(r.indices[r.of] == index)[0]
        trace(
            fig,
            _lines([place(r.paths[b]) for b in chosen], dimensions),
            dimensions,
            mode="lines",
            name=f"from saddles of index {index} ({len(chosen)} branches)",
            line={"color": colours[i % len(colours)], "width": 2, "dash": figures.DASHES[i % len(figures.DASHES)]},
        )
    for i, (name, rows) in enumerate((("stable points", r.attractors), ("saddles", r.saddles))):
        trace(
            fig, place(rows), dimensions, mode="markers", name=f"{name} ({len(rows)})",
            marker=marker_of(i + 2, colours, dimensions),
        )  # fmt: skip
    note = f"{escape_plotly(r.held)}; {r.agreement:.0%} of the branches end at a stable point next to their saddle"
    return _finish(
        fig, f"Unstable directions of {escape_plotly(r.system)}", _said(r, note), titles, dimensions, template
    )


def continua(r: "Continua", dimensions: int, template: str) -> "plotly.graph_objects.Figure":
    """See `Continua.figure`."""
    fig, place, titles = _begin(r.points, r.points, dimensions)
    colours = figures.colors(template)
    for c, shape in enumerate(r.shapes):
        rows = r.points[r.of == c]
        rows = np.concatenate([rows, rows[:1]]) if shape == "ring" else rows
        trace(
            fig,
            place(rows),
            dimensions,
            mode="lines+markers" if shape in ("ring", "line") else "markers",
            name=f"{shape}, length {r.lengths[c]:.3g}, drift {r.drifts[c]:.2g} a step (beside it {r.beside[c]:.2g})",
            marker={"size": 4, "color": colours[c % len(colours)]},
            line={"color": colours[c % len(colours)], "width": 2},
        )
    title = f"Lines and rings that {escape_plotly(r.system)} leaves where they are"
    note = f"control: carries {r.step:g} beside each curve"
    note = f"{escape_plotly(r.held)}; {note}" if r.held else note
    return _finish(fig, title, _said(r, note), titles, dimensions, template)


def _said(r: Any, note: str) -> str:
    """`note`, and before it what is missing from a result that was cut short."""
    return "; ".join(filter(None, (r.partial, note)))


def _begin(points: np.ndarray, others: np.ndarray, dimensions: int) -> Any:
    """(empty figure, carries -> coordinates, axis titles)."""
    import plotly.graph_objects as go

    if dimensions not in (2, 3):
        raise ValueError(f"a portrait in {dimensions} dimensions was asked for; give 2 or 3")
    centre, v, share = axes_of(points, others, dimensions)
    titles = [f"PC {i + 1} of the points ({share[i]:.0%} of variance)" for i in range(dimensions)]
    return go.Figure(), lambda rows: (rows - centre) @ v.T, titles


def _lines(rows: list[np.ndarray], dimensions: int) -> np.ndarray:
    """Several lines as one, with a gap between them."""
    gap = np.full((1, dimensions), np.nan)
    return np.concatenate([x for row in rows for x in (row, gap)]) if rows else gap


def _finish(fig: Any, title: str, note: str, titles: list[str], dimensions: int, template: str) -> Any:
    fig.update_layout(
        title={"text": title, "subtitle": {"text": note}},
        margin={"t": 84},
        height=520,
        legend={"y": -0.18, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    if dimensions == 2:
        fig.update_xaxes(title_text=titles[0])
        fig.update_yaxes(title_text=titles[1], scaleanchor="x")
    else:
        fig.update_scenes({f"{a}axis": {"title": {"text": t}} for a, t in zip("xyz", titles, strict=True)})
    return figures.style(fig, template)
