"""Draws a `SteeringSweep`: curves over the multiplier, layers by multipliers, and what is gained against its cost."""

from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import figures

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.steering.sweep_result import SteeringSweep

# name -> (title, unit)
_NAMES = {
    "behaviour": ("behaviour", "p(matching) / p(either answer)"),
    "effect": ("change of the behaviour", "change of p(matching) / p(either answer)"),
    "outside": ("probability outside the answers", "probability"),
    "kl": ("KL(unsteered ‖ steered) of the next token", "nats"),
    "log_perplexity": ("steered continuation under the unsteered model", "nats per token"),
}


def curves(s: "SteeringSweep", layer: int | None, template: str) -> "plotly.graph_objects.Figure":
    """See `SteeringSweep.figure`."""
    from plotly.subplots import make_subplots

    if layer is None:
        at = _best_layer(s)
    elif layer in s.layers:
        at = s.layers.index(layer)
    else:
        raise ValueError(f"layer {layer} was asked for; this sweep has {', '.join(map(str, s.layers))}")
    panels = ["behaviour", "outside", "kl", *(["log_perplexity"] if s.base_log_perplexity.size else [])]
    fig = make_subplots(rows=1, cols=len(panels), horizontal_spacing=0.09)
    palette = figures.colors(template)
    for column, name in enumerate(panels, 1):
        for v in range(len(s.vectors)):
            if np.isfinite(s.mean(name)[v, 0, at]).any():
                _curve(fig, s, name, v, at, palette[v % len(palette)], column)
        base = {"behaviour": s.base_behaviour, "outside": s.base_outside, "log_perplexity": s.base_log_perplexity}
        if name in base:
            panel: dict[str, Any] = {"row": 1, "col": column}
            fig.add_hline(y=float(base[name].mean()), line={"dash": "dashdot", "width": 1}, **panel)
        fig.update_xaxes(title_text="multiplier", row=1, col=column)
        fig.update_yaxes(title_text=f"{_NAMES[name][0]}<br>({_NAMES[name][1]})", row=1, col=column)
        if name != "log_perplexity":
            fig.update_yaxes(rangemode="tozero", row=1, col=column)
    fig.update_layout(
        title={
            "text": f"Steering at layer {s.layers[at]} towards {s.labels[0]}, away from {s.labels[1]}",
            "subtitle": {
                "text": f"mean and 95 % bootstrap interval over {s.base_behaviour.size} questions; × breaks the model; "
                f"grey: {s.kl.shape[1] - 1} random directions of equal norm; dash-dotted: unsteered"
            },
        },
        margin={"t": 100},
    )
    return figures.style(fig, template)


def _curve(fig: Any, s: "SteeringSweep", name: str, v: int, at: int, color: str, column: int) -> None:
    x, mean = s.multipliers, s.mean(name)[v, :, at]
    low, high = s.interval(name)[:, v, 0, at]
    symbols = np.where(s.broken[v, 0, at], "x", figures.SYMBOLS[v % len(figures.SYMBOLS)])
    for draw in range(1, len(mean)):
        fig.add_scatter(
            x=x,
            y=mean[draw],
            mode="lines",
            line={"color": figures.CONTROL_COLOR, "dash": figures.DASHES[v % len(figures.DASHES)], "width": 1},
            name=f"random, as {s.vectors[v]}",
            legendgroup=f"random {v}",
            showlegend=draw == 1 and column == 1,
            row=1,
            col=column,
        )
    fig.add_scatter(
        x=x,
        y=mean[0],
        error_y={"type": "data", "symmetric": False, "array": high - mean[0], "arrayminus": mean[0] - low, "width": 2},
        mode="lines+markers",
        line={"color": color, "dash": figures.DASHES[v % len(figures.DASHES)]},
        marker={"color": color, "symbol": symbols.tolist(), "size": 8},
        name=s.vectors[v],
        legendgroup=s.vectors[v],
        showlegend=column == 1,
        row=1,
        col=column,
    )


def heatmap(s: "SteeringSweep", name: str, vector: str | None, template: str) -> "plotly.graph_objects.Figure":
    """See `SteeringSweep.heatmap_figure`."""
    import plotly.graph_objects as go

    v = s.vector_index(vector)
    z = s.mean(name)[v, 0]
    colour = figures.diverging(z) if name == "effect" else {"colorscale": figures.SEQUENTIAL_REVERSED, "zmin": 0.0}
    columns = list(range(len(s.multipliers)))
    text = [["×" if broken else "" for broken in row] for row in s.broken[v, 0]]
    fig = go.Figure(
        go.Heatmap(
            z=z,
            x=columns,
            y=list(s.layers),
            text=text,
            texttemplate="%{text}",
            colorbar={"title": {"text": _NAMES[name][1]}},
            hovertemplate="layer %{y}: %{z:.3g}<extra></extra>",
            **colour,
        )
    )
    figures.missing_cells(fig, z, columns, s.layers)
    fig.update_xaxes(
        title_text="multiplier", tickmode="array", tickvals=columns, ticktext=[f"{m:g}" for m in s.multipliers]
    )
    fig.update_yaxes(title_text="layer", tickmode="array", tickvals=list(s.layers), showgrid=False)
    chance = s.mean(name)[v, 1:]
    note = f"× breaks the model; random directions: {np.nanmin(chance):.3g} to {np.nanmax(chance):.3g}"
    fig.update_layout(
        title={
            "text": f"{s.vectors[v].capitalize()} towards {s.labels[0]}: {_NAMES[name][0]}",
            "subtitle": {"text": note},
        },
        margin={"t": 84},
    )
    return figures.style(fig, template)


def trade(s: "SteeringSweep", template: str) -> "plotly.graph_objects.Figure":
    """See `SteeringSweep.trade_figure`."""
    import plotly.graph_objects as go

    fig, palette = go.Figure(), figures.colors(template)
    kl, effect, broken = s.mean("kl"), s.mean("effect"), s.broken
    layer, multiplier = np.indices(kl.shape[2:])
    for v, vector in enumerate(s.vectors):
        for name, draws in ((f"random, as {vector}", slice(1, None)), (vector, slice(0, 1))):
            random = name != vector
            shape = broken[v, draws].shape
            symbol = np.where(broken[v, draws], "x", figures.SYMBOLS[v % len(figures.SYMBOLS)]).ravel()
            where = [
                f"layer {s.layers[i]}, multiplier {s.multipliers[j]:g}"
                for i, j in zip(
                    np.broadcast_to(layer, shape).ravel(), np.broadcast_to(multiplier, shape).ravel(), strict=True
                )
            ]
            fig.add_scatter(
                x=kl[v, draws].ravel(),
                y=effect[v, draws].ravel(),
                mode="markers",
                marker={
                    "color": figures.CONTROL_COLOR if random else palette[v % len(palette)],
                    "symbol": symbol.tolist(),
                    "size": 5 if random else 9,
                },
                customdata=where,
                hovertemplate="%{customdata}<br>%{x:.3g} nats, %{y:+.3f}<extra></extra>",
                name=name,
            )
    fig.update_xaxes(title_text="KL(unsteered ‖ steered) of the next token (nats)", rangemode="tozero")
    fig.update_yaxes(title_text="change of p(matching) / p(either answer)")
    fig.update_layout(
        title={
            "text": f"What steering towards {s.labels[0]} gains, against what it costs",
            "subtitle": {
                "text": "every layer and multiplier; × breaks the model; grey: random directions of equal norm"
            },
        },
        margin={"t": 84},
    )
    return figures.style(fig, template)


def _best_layer(s: "SteeringSweep") -> int:
    """The layer of the best setting; where all of them break the model, that of the largest change either way."""
    try:
        return s.best(0)[0]
    except ValueError:
        effect = np.abs(s.mean("effect")[0, 0])
        return int(np.unravel_index(np.nanargmax(effect), effect.shape)[0])
