"""Draws a `LayerGeometry`: state beside update, error against effect beside its controls, spectra."""

from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import figures
from strobe.probes.geometry.result import CONTROLS, MEASURES, RELATIONS

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.geometry.result import LayerGeometry

# Under the axis title, from the left: the legends here are too long for the right.
LEGEND_BELOW = {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.22, "yanchor": "top"}

_TITLES = {
    "cosine": "Cosine of what the block did and what a tokenwise map predicts",
    "angle": "Angle between what the block did and what a tokenwise map predicts",
    "error": "What a tokenwise map leaves over, relative to what the block did",
    "energy": "Share of the block's output in the tokenwise subspace",
    "energy_residual": "Share of the residual in the tokenwise subspace",
    "cosine_residual": "Cosine of what the block did and the residual",
}
_SIDES = ("state after the block (as published)", "update of the block (ours)")
_SAID = {
    "own": "residual of the map",
    "random": "control: residual in a random direction",
    "permuted": "control: residual of another token",
    "partial": "residual of the map, given the state's norm",
}


def pair(r: "LayerGeometry", measure: str, template: str) -> "plotly.graph_objects.Figure":
    """See `LayerGeometry.figure`."""
    from plotly.subplots import make_subplots

    sides = r.pair(measure)
    fig = make_subplots(rows=1, cols=2, subplot_titles=_SIDES, horizontal_spacing=0.1)
    for column, values in enumerate(sides, 1):
        for m, name in enumerate(r.maps):
            if np.isfinite(values[:, m]).any():
                _line(fig, r, values[:, m], name, m, column, template)
        fig.update_yaxes(title_text=f"{measure.replace('_', ' of ')} ({MEASURES[measure][2]})", row=1, col=column)
        _layer_axis(fig, r, row=1, col=column)
    # Side by side means on one scale.
    fig.update_yaxes(matches="y")
    note = "identity has no update, so it is not on the right; " if "identity" in r.maps else ""
    fig.update_layout(
        title={
            "text": _TITLES[measure],
            "subtitle": {
                "text": f"{r.partial}{'; ' if r.partial else ''}mean and quartiles of {r.token_ids.size} tokens; grey: "
                f"controls that know no token; {note}NaN is not drawn"
            },
        },
        margin={"t": 120, "b": 110},
        legend=LEGEND_BELOW,
    )
    return figures.style(fig, template)


def _line(fig: Any, r: "LayerGeometry", values: np.ndarray, name: str, m: int, column: int, template: str) -> None:
    finite = [v[np.isfinite(v)] for v in values]
    low, middle, high = (
        np.array([f(v) if v.size else np.nan for v in finite])
        for f in (lambda v: np.quantile(v, 0.25), np.mean, lambda v: np.quantile(v, 0.75))
    )
    palette = figures.colors(template)
    color = figures.CONTROL_COLOR if name in CONTROLS else palette[m % len(palette)]
    fig.add_scatter(
        # Quartiles of several maps at one layer would lie on top of each other.
        x=np.array(r.layers) + 0.05 * (m - (len(r.maps) - 1) / 2),
        y=middle,
        error_y={
            "type": "data", "symmetric": False, "array": np.maximum(high - middle, 0),
            "arrayminus": np.maximum(middle - low, 0), "width": 0, "thickness": 1,
        },
        mode="lines+markers",
        name=("control: " if name in CONTROLS else "") + name.replace("_", "-"),
        legendgroup=name,
        # The identity is on the left only.
        showlegend=column == 1,
        line={"color": color, "dash": figures.DASHES[m % len(figures.DASHES)]},
        marker={"symbol": figures.SYMBOLS[m % len(figures.SYMBOLS)], "size": 7},
        row=1,
        col=column,
    )  # fmt: skip


def correlations(r: "LayerGeometry", name: str | None, template: str) -> "plotly.graph_objects.Figure":
    """See `LayerGeometry.correlation_figure`."""
    import plotly.graph_objects as go

    m = r.map_index(name)
    palette, fig = figures.colors(template), go.Figure()
    for i, relation in enumerate(RELATIONS):
        value, low, high = r.rank_correlation[:, :, i, m].T
        control = relation in ("random", "permuted")
        fig.add_scatter(
            x=np.array(r.layers) + 0.05 * (i - 1.5),
            y=value,
            error_y={"type": "data", "symmetric": False, "array": high - value, "arrayminus": value - low, "width": 3},
            mode="lines+markers",
            name=_SAID[relation],
            line={"color": figures.CONTROL_COLOR if control else palette[i % 2], "dash": figures.DASHES[i]},
            marker={"symbol": figures.SYMBOLS[i], "size": 8},
        )
    fig.add_hline(y=0, line={"width": 1, "color": figures.CONTROL_COLOR})
    _layer_axis(fig, r)
    fig.update_yaxes(title_text="Spearman's ρ(‖residual‖ / ‖state‖, KL)", range=[-1.05, 1.05])
    fig.update_layout(
        title={
            "text": f"Does a larger residual change the output more? Map: {r.maps[m].replace('_', '-')}",
            "subtitle": {
                "text": f"{r.token_ids.size} tokens, one replaced at a time; 95 % interval by bootstrap over sequences"
            },
        },
        margin={"t": 100, "b": 110},
        legend=LEGEND_BELOW,
    )
    return figures.style(fig, template)


def scatter(r: "LayerGeometry", layer: int, name: str | None, template: str) -> "plotly.graph_objects.Figure":
    """See `LayerGeometry.scatter_figure`."""
    import plotly.graph_objects as go

    at, m = r.layer_index(layer), r.map_index(name)
    palette, fig = figures.colors(template), go.Figure()
    for kind, color, symbol in ((1, figures.CONTROL_COLOR, "x"), (0, palette[0], "circle")):
        fig.add_scatter(
            x=r.error_state[at, m],
            y=r.kl[at, kind, m],
            mode="markers",
            name=_SAID[RELATIONS[kind]],
            marker={"color": color, "symbol": symbol, "size": 6, "opacity": 0.6},
            customdata=np.stack([r.position, r.token_ids], 1),
            hovertemplate="token id %{customdata[1]}, position %{customdata[0]}: error %{x:.3g}, %{y:.3g} nats"
            "<extra></extra>",
        )
    rho = r.rank_correlation[at, 0, :, m]
    fig.update_xaxes(title_text="‖residual‖ / ‖state‖")
    zero = int((r.kl[at, 0, m] <= 0).sum())
    fig.update_yaxes(title_text="KL(as it is ‖ replaced) (nats)", type="log", exponentformat="power")
    fig.update_layout(
        title={
            "text": f"Residual and its effect after block {layer}; map: {r.maps[m].replace('_', '-')}",
            "subtitle": {
                "text": f"ρ {rho[0]:.2f}, random direction {rho[1]:.2f}, another token's residual {rho[2]:.2f}, given "
                f"the norm {rho[3]:.2f}" + (f"; {zero} tokens of KL 0 are not on the log axis" if zero else "")
            },
        },
        margin={"t": 100, "b": 110},
        legend=LEGEND_BELOW,
    )
    return figures.style(fig, template)


def spectra(r: "LayerGeometry", layer: int, template: str) -> "plotly.graph_objects.Figure":
    """See `LayerGeometry.spectrum_figure`."""
    import plotly.graph_objects as go

    at = r.layer_index(layer)
    palette, fig = figures.colors(template), go.Figure()
    n = min(r.spectrum.shape[-1], r.d_model)
    for m, name in enumerate(r.maps):
        if not np.isfinite(r.spectrum[at, m]).all():
            continue
        fig.add_scatter(
            x=np.arange(1, n + 1),
            y=np.cumsum(r.spectrum[at, m, :n]),
            mode="lines",
            name=f"{'control: ' if name in CONTROLS else ''}{name.replace('_', '-')} ({r.dimensions[at, m, 1]})",
            line={
                "color": figures.CONTROL_COLOR if name in CONTROLS else palette[m % len(palette)],
                "dash": figures.DASHES[m % len(figures.DASHES)],
            },
        )
    fig.add_hline(y=0.9, line={"width": 1, "dash": "dot"}, annotation_text="90 %: the subspace of the energies")
    fig.update_xaxes(title_text=f"directions (of {r.d_model})", type="log")
    fig.update_yaxes(title_text="share of the predicted updates' squares", range=[0, 1.02])
    fig.update_layout(
        title={
            "text": f"How many directions the predicted updates of block {layer} use",
            "subtitle": {"text": "in brackets: dimensions that hold 90 %"},
        },
        margin={"t": 100},
    )
    return figures.style(fig, template)


def _layer_axis(fig: Any, r: "LayerGeometry", **selector: Any) -> None:
    step = max(1, len(r.layers) // 16)
    fig.update_xaxes(
        title_text=f"block (of {r.n_layers}, from 0)",
        tickmode="array",
        tickvals=list(r.layers[::step]),
        range=[r.layers[0] - 0.5, r.layers[-1] + 0.5],
        **selector,
    )
