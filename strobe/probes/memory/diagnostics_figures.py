"""Draws carry diagnostics: curves over time with the training length marked, outliers, range, loss."""

from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import figures

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.memory.diagnostics_result import CarryDiagnostics

# What is drawn, its axis, and whether that is logarithmic.
_WHAT = {
    "norm": ("head_norm", "Euclidean norm of the memory (mean over the batch)", True),
    "variance": ("head_variance", "variance of the memory's entries", True),
    "mean": ("head_mean", "mean of the memory's entries", False),
    "largest": ("head_largest", "largest magnitude in the memory", True),
    "rank": ("rank", "effective rank", False),
    "saturation": ("saturation", "saturation (0 to 1)", False),
    "retention": ("log_retention", "retention α₁:ₜ of the first token", True),
}


def over_time(r: "CarryDiagnostics", what: str, layer: int | None, template: str) -> "plotly.graph_objects.Figure":
    """See `CarryDiagnostics.figure`."""
    import plotly.graph_objects as go

    if what not in _WHAT:
        raise ValueError(f"a figure of {what!r} was asked for; there are {', '.join(_WHAT)}")
    at, (field, axis, log) = _index(r, layer), _WHAT[what]
    values = getattr(r, field)[at]
    if values is None:
        raise ValueError(f"layer {r.layers[at]} ({r.mixers[at]}) has no {what}; {_why(what)}")
    values = np.exp(values.astype(np.float64)) if what == "retention" else values
    fig = go.Figure()
    control = {"norm": r.control_norm, "retention": r.control_log_retention}.get(what, [None] * len(r.layers))[at]
    if control is not None and len(control):
        shown = np.exp(control.astype(np.float64)) if what == "retention" else control
        for head in range(shown.shape[1]):
            _line(
                fig, r.control_positions, shown[:, head], "shuffled (control)", figures.CONTROL_COLOR, "dot", head == 0
            )
    palette = figures.colors(template)
    for head in range(values.shape[1]):
        dash = figures.DASHES[head // len(palette) % len(figures.DASHES)]
        _line(fig, r.positions, values[:, head], f"head {head}", palette[head % len(palette)], dash, True)
    fig.update_xaxes(title_text="position (tokens)", type="log")
    fig.update_yaxes(title_text=axis, type="log" if log else "linear", exponentformat="power")
    _mark_training(fig, r.train_length)
    title = f"{what.capitalize()} along the input, layer {r.layers[at]} ({r.mixers[at]})"
    return _finish(fig, r, title, "dotted grey: the same tokens shuffled", template)


def outliers(r: "CarryDiagnostics", layer: int | None, template: str) -> "plotly.graph_objects.Figure":
    """See `CarryDiagnostics.channel_figure`."""
    import plotly.graph_objects as go

    at = _index(r, layer)
    norms = r.channel_norm[at]
    assert norms is not None
    inside = np.flatnonzero(r.positions < r.train_length)
    first = int(inside[-1]) if inside.size else 0
    fig = go.Figure()
    both = np.log10(np.maximum(norms[[first, -1]], np.finfo(np.float32).tiny))
    bins = {"start": float(both.min()), "end": float(both.max()) + 1e-6, "size": float(np.ptp(both)) / 40 + 1e-9}
    for row, colour, when in ((0, figures.CONTROL_COLOR, first), (1, figures.colors(template)[0], len(norms) - 1)):
        name = f"after {r.positions[when] + 1} tokens"
        fig.add_histogram(x=both[row], xbins=bins, name=name, marker={"color": colour}, opacity=0.65)
    fig.update_xaxes(title_text="log₁₀ of a channel's norm")
    fig.update_yaxes(title_text="channels", type="log")
    fig.update_layout(barmode="overlay")
    top = norms[-1].max() / max(float(np.median(norms[-1])), np.finfo(np.float32).tiny)
    title = f"Outlier channels, layer {r.layers[at]} ({r.mixers[at]})"
    note = f"largest over median at the end: {top:.3g}; grey: within training (control)"
    return _finish(fig, r, title, note, template)


def beyond_range(r: "CarryDiagnostics", template: str) -> "plotly.graph_objects.Figure":
    """See `CarryDiagnostics.range_figure`."""
    import plotly.graph_objects as go

    fig, palette = go.Figure(), figures.colors(template)
    for i, layer in enumerate(r.layers):
        share, inside = r.outside[i], r.control_outside[i]
        if share is None or inside is None:
            continue
        colour = palette[i % len(palette)]
        _line(fig, r.positions[len(r.positions) - len(share) :], share, f"layer {layer}", colour, "solid", True)
        _line(
            fig, r.positions[: len(inside)], inside, "held out, inside (control)", figures.CONTROL_COLOR, "dot", i == 0
        )
    if not fig.data:
        raise ValueError(
            "the distance from the training range was asked for; this run has one row or no position inside the "
            "training length; give two rows at least and a stride below the training length"
        )
    fig.update_xaxes(title_text="position (tokens)", type="log")
    fig.update_yaxes(title_text="units outside the range seen in training", tickformat=".0%", rangemode="tozero")
    _mark_training(fig, r.train_length)
    note = "range: even rows, within training; shares: odd rows"
    return _finish(fig, r, "How far the carry leaves what training showed", note, template)


def loss(r: "CarryDiagnostics", template: str) -> "plotly.graph_objects.Figure":
    """See `CarryDiagnostics.loss_figure`."""
    import plotly.graph_objects as go

    fig = go.Figure()
    ends = np.minimum((np.arange(len(r.window_loss)) + 1) * r.stride, r.time)
    _line(fig, ends - 1, r.window_loss, "loss", figures.colors(template)[0], "solid", True)
    within = r.window_loss[ends <= r.train_length]
    if np.isfinite(within).any():
        twice = 2 * np.nanmax(within)
        fig.add_hline(y=twice, line={"color": figures.CONTROL_COLOR, "dash": "dash"},
                      annotation_text="twice the largest within training")  # fmt: skip
    fig.update_xaxes(title_text="position (tokens)", type="log")
    fig.update_yaxes(title_text="loss (nats per scored token)", rangemode="tozero")
    _mark_training(fig, r.train_length)
    note = "the dashed line is the forgetting criterion of Chen et al. 2024"
    return _finish(fig, r, "Loss by position", note, template)


def _index(r: "CarryDiagnostics", layer: int | None) -> int:
    if layer is None:
        return 0
    if layer not in r.layers:
        raise ValueError(f"layer {layer} was asked for; this result has {', '.join(map(str, r.layers))}")
    return r.layers.index(layer)


def _why(what: str) -> str:
    return {
        "retention": "it is nonlinear in its carry",
        "rank": "its memory is a vector",
    }.get(what, "its memory is a vector without a bound")


def _line(fig: Any, x: Any, y: Any, name: str, colour: str, dash: str, legend: bool) -> None:
    fig.add_scatter(x=np.asarray(x) + 1, y=y, mode="lines", name=name, line={"color": colour, "dash": dash},
                    showlegend=legend, legendgroup=name)  # fmt: skip


def _mark_training(fig: Any, length: int) -> None:
    # A shape on a logarithmic axis is placed by the logarithm, its annotation too.
    fig.add_vline(x=length, line={"color": figures.CONTROL_COLOR, "width": 1})
    fig.add_annotation(x=float(np.log10(length)), y=1, yref="paper", text="training length", showarrow=False,
                       xanchor="left", font={"color": figures.CONTROL_COLOR, "size": 11})  # fmt: skip


def _finish(fig: Any, r: "CarryDiagnostics", title: str, note: str, template: str) -> Any:
    note = "; ".join(filter(None, (r.partial, note)))
    fig.update_layout(title={"text": title, "subtitle": {"text": note}}, margin={"t": 84}, height=420)
    return figures.style(fig, template)
