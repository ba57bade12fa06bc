"""Draws fixed points: phase portrait, eigenvalues beside the unit circle, points against seeds, timescales."""

from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly
from strobe.probes.fixed_points import classify, completeness

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.fixed_points.result import FixedPoints
    from strobe.probes.fixed_points.spectrum import HeldFixedPoint


def axes_of(points: np.ndarray, others: np.ndarray, dimensions: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(centre [size], directions [dimensions, size], share of variance [dimensions]): principal axes of the points, or
    of `others` where there are too few points to span a figure. A short carry is padded with directions of zeros."""
    data = points if len(points) > dimensions else np.concatenate([points, others])
    centre = data.mean(0) if len(data) else np.zeros(points.shape[1])
    _, s, v = np.linalg.svd(data - centre, full_matrices=False)
    share = s**2 / max(float((s**2).sum()), np.finfo(float).tiny)
    # The sign of a principal axis is free; fixed by its largest entry, so that a figure comes out the same again.
    v = v * np.sign(np.take_along_axis(v, np.abs(v).argmax(1)[:, None], 1))
    missing = max(dimensions - len(v), 0)
    return centre, np.pad(v, ((0, missing), (0, 0)))[:dimensions], np.pad(share, (0, missing))[:dimensions]


def portrait(r: "FixedPoints", dimensions: int, template: str) -> "plotly.graph_objects.Figure":
    """See `FixedPoints.figure`."""
    import plotly.graph_objects as go

    if dimensions not in (2, 3):
        raise ValueError(f"a portrait in {dimensions} dimensions was asked for; give 2 or 3")
    paths = r.trajectories
    centre, v, share = axes_of(r.points, paths.reshape(-1, paths.shape[-1]), dimensions)
    fig = go.Figure()
    flat = np.full((len(paths), 1, dimensions), np.nan)
    lines = np.concatenate([(paths - centre) @ v.T, flat], 1).reshape(-1, dimensions)
    trace(fig, lines, dimensions, mode="lines", name="trajectories", line={"color": figures.CONTROL_COLOR, "width": 1})
    colours, kinds = figures.colors(template), np.array(r.kinds, dtype=object)
    for i, kind in enumerate(dict.fromkeys(r.kinds)):
        rows = np.nonzero(kinds == kind)[0]
        trace(
            fig,
            (r.points[rows] - centre) @ v.T,
            dimensions,
            mode="markers",
            name=f"{kind} ({len(rows)})",
            marker=marker_of(i, colours, dimensions, hollow=not kind.startswith("stable")),
            customdata=[_hover(r, j) for j in rows.tolist()],
            hovertemplate="%{customdata}<extra></extra>",
        )
    if len(r.slow_points):
        text = [f"slow point: speed {speed:.3g}" for speed in r.slow_speeds]
        trace(
            fig,
            (r.slow_points - centre) @ v.T,
            dimensions,
            mode="markers",
            name=f"slow point ({len(text)})",
            marker={"symbol": "circle-open", "size": 8, "color": colours[5]},
            customdata=text,
            hovertemplate="%{customdata}<extra></extra>",
        )
    note = f"{escape_plotly(r.held)}; {r.verdict.split(';')[0]}"
    if r.control is not None:
        note += f"; control: {len(r.control.points)} fixed points"
    fig.update_layout(
        title={"text": f"Fixed points of {escape_plotly(r.system)}", "subtitle": {"text": note}},
        margin={"t": 84},
        height=520,
        legend={"y": -0.18, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    titles = [f"PC {i + 1} of the points ({share[i]:.0%} of variance)" for i in range(dimensions)]
    if dimensions == 2:
        fig.update_xaxes(title_text=titles[0])
        fig.update_yaxes(title_text=titles[1], scaleanchor="x")
    else:
        fig.update_scenes({f"{a}axis": {"title": {"text": t}} for a, t in zip("xyz", titles, strict=True)})
    return figures.style(fig, template)


def eigenvalue_plane(r: "FixedPoints", point: int | None, template: str) -> "plotly.graph_objects.Figure":
    """See `FixedPoints.eigenvalue_figure`."""
    if point is not None and not 0 <= point < len(r.points):
        raise ValueError(f"the eigenvalues of point {point} were asked for; there are points 0 to {len(r.points) - 1}")
    fig = _unit_circle()
    if r.control is not None and point is None:
        _eigenvalues(fig, r.control.eigenvalues.ravel(), "weights shuffled (control)", figures.CONTROL_COLOR, "x", [])
    kinds, colours = np.array(r.kinds, dtype=object), figures.colors(template)
    for i, kind in enumerate(dict.fromkeys(r.kinds)):
        rows = np.nonzero(kinds == kind)[0]
        rows = rows if point is None else rows[rows == point]
        if not len(rows):
            continue
        names = [f"point {j} ({kind})" for j in rows for _ in range(r.eigenvalues.shape[1])]
        marker = figures.SYMBOLS[i % len(figures.SYMBOLS)]
        _eigenvalues(fig, r.eigenvalues[rows].ravel(), kind, colours[i % len(colours)], marker, names)
    which = "all points" if point is None else f"point {point} ({r.kinds[point]})"
    return _plane(fig, f"Eigenvalues of the Jacobian, {which}", escape_plotly(f"{r.system}, {r.held}"), template)


def held_eigenvalues(r: "HeldFixedPoint", template: str) -> "plotly.graph_objects.Figure":
    """See `HeldFixedPoint.eigenvalue_figure`."""
    fig = _unit_circle()
    n = r.eigenvalues.shape[1]
    _eigenvalues(fig, r.control.ravel(), "input permuted (control)", figures.CONTROL_COLOR, "x", [])
    names = [f"head {h}" for h in range(len(r.eigenvalues)) for _ in range(n)]
    _eigenvalues(fig, r.eigenvalues.ravel(), "this input", figures.colors(template)[0], "circle", names)
    note = f"each counts {r.multiplicity} times; {escape_plotly(r.held)}"
    return _plane(fig, f"Eigenvalues of the transition, layer {r.layer} ({r.mixer})", note, template)


def timescales(r: "HeldFixedPoint", template: str) -> "plotly.graph_objects.Figure":
    """See `HeldFixedPoint.figure`."""
    import plotly.graph_objects as go

    longest = r.turn * _longest(r.eigenvalues)
    order = np.argsort(longest)
    fig = go.Figure()
    fig.add_scatter(
        x=list(range(len(order))),
        y=np.sort(r.turn * _longest(r.control)),
        mode="lines+markers",
        name="input permuted (control)",
        marker={"symbol": "x", "size": 5},
        line={"color": figures.CONTROL_COLOR, "dash": "dot"},
    )
    fig.add_scatter(
        x=list(range(len(order))),
        y=longest[order],
        mode="lines+markers",
        name="this input",
        marker={"size": 5},
        line={"color": figures.colors(template)[0]},
        customdata=[f"head {h}: {r.status[h]}" for h in order],
        hovertemplate="%{customdata}<br>tau %{y:.4g} tokens<extra></extra>",
    )
    lost = int((~np.isfinite(longest)).sum())
    note = escape_plotly(r.held) + (f"; {lost} heads keep what they have for ever and are not drawn" if lost else "")
    fig.update_xaxes(title_text="head, shortest timescale first (each curve in its own order)")
    fig.update_yaxes(title_text="longest timescale, tokens", type="log")
    fig.update_layout(
        title={"text": f"Timescales under a held token, layer {r.layer} ({r.mixer})", "subtitle": {"text": note}},
        margin={"t": 84},
        height=380,
    )
    return figures.style(fig, template)


def point_timescales(r: "FixedPoints", template: str) -> "plotly.graph_objects.Figure":
    """See `FixedPoints.timescale_figure`."""
    import plotly.graph_objects as go

    fig, colours, kinds = go.Figure(), figures.colors(template), np.array(r.kinds, dtype=object)
    if r.control is not None:
        rows = classify.timescales(r.control.eigenvalues)
        _fading(fig, np.arange(len(rows)), rows, "weights shuffled (control)", figures.CONTROL_COLOR, "x")
    for i, kind in enumerate(dict.fromkeys(r.kinds)):
        rows = np.nonzero(kinds == kind)[0]
        symbol = figures.SYMBOLS[i % len(figures.SYMBOLS)]
        _fading(fig, rows, r.timescales[rows], kind, colours[i % len(colours)], symbol)
    forever = int((np.abs(np.abs(r.eigenvalues) - 1) <= classify.MARGINAL).sum())
    grows = int((np.abs(r.eigenvalues) > 1 + classify.MARGINAL).sum())
    fig.update_xaxes(title_text="point, by saddle index")
    fig.update_yaxes(title_text="timescale of fading directions, steps", type="log")
    note = f"{escape_plotly(r.held)}; {grows} directions grow and {forever} neither grow nor fade: not drawn"
    fig.update_layout(
        title={"text": f"Timescales at the fixed points of {escape_plotly(r.system)}", "subtitle": {"text": note}},
        margin={"t": 84},
        height=420,
        legend={"y": -0.18, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    return figures.style(fig, template)


def _fading(fig: Any, points: np.ndarray, tau: np.ndarray, name: str, colour: str, symbol: str) -> None:
    drawn = np.isfinite(tau) & (tau > 0)
    fig.add_scatter(
        x=np.broadcast_to(points[:, None], tau.shape)[drawn],
        y=tau[drawn],
        mode="markers",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 5},
        hovertemplate="point %{x}<br>τ %{y:.4g} steps<extra></extra>",
    )


def discovery(r: "FixedPoints", template: str) -> "plotly.graph_objects.Figure":
    """See `FixedPoints.completeness_figure`."""
    import plotly.graph_objects as go

    fig = go.Figure()
    if r.control is not None:
        seeds, found = completeness.discovery_curve(r.control.hits)
        fig.add_scatter(
            x=seeds,
            y=found,
            mode="lines",
            name="weights shuffled (control)",
            line={"color": figures.CONTROL_COLOR, "dash": "dot"},
        )
    seeds, found = completeness.discovery_curve(r.hits)
    colours = figures.colors(template)
    fig.add_scatter(x=seeds, y=found, mode="lines+markers", name="initial carries alone", line={"color": colours[0]})
    fig.add_hline(
        y=len(r.points),
        line={"color": colours[1], "dash": "dash"},
        annotation_text=f"{len(r.points)} with those found between others",
    )
    fig.update_xaxes(title_text="initial carries that ended at a fixed point", type="log")
    fig.update_yaxes(title_text="different fixed points found (mean)", rangemode="tozero")
    fig.update_layout(
        title={"text": "Have all fixed points been found?", "subtitle": {"text": escape_plotly(r.verdict)}},
        margin={"t": 84},
        height=380,
    )
    return figures.style(fig, template)


def trace(fig: Any, rows: np.ndarray, dimensions: int, **options: Any) -> None:
    """Add `rows` [n, dimensions] to `fig`, in the plane or in space."""
    import plotly.graph_objects as go

    columns = dict(zip("xyz", rows.T, strict=False))
    fig.add_trace((go.Scatter if dimensions == 2 else go.Scatter3d)(**columns, **options))


def marker_of(i: int, colours: Any, dimensions: int, *, hollow: bool = False) -> dict[str, Any]:
    """The colour and the symbol of the i-th kind of point; `hollow` in the plane, where one may lie behind another."""
    # Plotly draws few of the symbols in three dimensions.
    symbols = figures.SYMBOLS if dimensions == 2 else ("circle", "square", "diamond", "cross", "x")
    return {
        "symbol": symbols[i % len(symbols)] + ("-open" if hollow and dimensions == 2 else ""),
        "size": 9 if dimensions == 2 else 5,
        "color": colours[i % len(colours)],
    }


def _hover(r: "FixedPoints", j: int) -> str:
    leading = classify.leading_eigenvalue(r.eigenvalues[j : j + 1])[0]
    return (
        f"point {j}: {r.kinds[j]}<br>speed {r.speeds[j]:.2g}, hit by {r.hits[j]} initial carries"
        f"<br>largest |λ| {abs(leading):.4g}, τ {classify.timescales(np.array([leading]))[0]:.4g} steps"
    )


def _unit_circle() -> Any:
    import plotly.graph_objects as go

    angle = np.linspace(0, 2 * np.pi, 181)
    circle = {"color": figures.CONTROL_COLOR, "width": 1}
    return go.Figure(
        go.Scatter(x=np.cos(angle), y=np.sin(angle), mode="lines", name="|λ| = 1", line=circle, hoverinfo="skip")
    )


def _eigenvalues(fig: Any, values: np.ndarray, name: str, colour: str, symbol: str, text: list[str]) -> None:
    tau = classify.timescales(values)
    fig.add_scatter(
        x=np.real(values),
        y=np.imag(values),
        mode="markers",
        name=name,
        marker={"color": colour, "symbol": symbol, "size": 6},
        customdata=[f"{t}<br>" if t else "" for t in (text or [""] * len(values))],
        text=[f"{t:.4g}" for t in tau],
        hovertemplate="%{customdata}λ = %{x:.4g} + %{y:.4g} i<br>τ = %{text} steps<extra></extra>",
    )


def _plane(fig: Any, title: str, note: str, template: str) -> Any:
    fig.update_xaxes(title_text="Re λ")
    fig.update_yaxes(title_text="Im λ", scaleanchor="x")
    fig.update_layout(
        title={"text": title, "subtitle": {"text": note}},
        margin={"t": 84},
        height=520,
        legend={"y": -0.18, "yanchor": "top", "x": 0, "xanchor": "left"},
    )
    return figures.style(fig, template)


def _longest(eigenvalues: np.ndarray) -> np.ndarray:
    """The timescale of each head's slowest decaying eigenvalue, [heads]."""
    return classify.timescales(np.abs(eigenvalues).max(1))
