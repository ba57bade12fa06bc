"""Draws the timescales of every layer of a model under a held token."""

from typing import TYPE_CHECKING

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly
from strobe.probes.fixed_points import classify

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.fixed_points.stack import HeldStack


def timescales(r: "HeldStack", template: str) -> "plotly.graph_objects.Figure":
    """See `HeldStack.figure`. Eigenvalues on the unit circle never fade and are counted in the subtitle; those that are
    0 fade in a step and have no place on a logarithmic axis."""
    import plotly.graph_objects as go

    fig, colours = go.Figure(), figures.colors(template)
    sets = (
        ("input permuted (control)", r.turn * classify.timescales(r.control), figures.CONTROL_COLOR, "x", -0.15),
        ("this input", r.timescales, colours[0], "circle", 0.15),
    )
    for name, tau, colour, symbol, shift in sets:
        drawn = np.isfinite(tau) & (tau > 0)
        fig.add_scatter(
            x=r.of[drawn] + shift,
            y=tau[drawn],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 5, "opacity": 0.7},
            customdata=[f"{r.names[i]} ({r.families[i]})" for i in r.of[drawn]],
            hovertemplate="%{customdata}<br>τ %{y:.4g} tokens<extra></extra>",
        )
    forever = int((r.multiplicity * (np.abs(np.abs(r.eigenvalues) - 1) <= classify.MARGINAL)).sum())
    grows = int((r.multiplicity * (np.abs(r.eigenvalues) > 1 + classify.MARGINAL)).sum())
    note = escape_plotly(r.held) + f"; {forever} directions never fade, {grows} grow"
    fig.update_xaxes(
        title_text="recurrent layer, from the bottom up",
        tickmode="array",
        tickvals=list(range(len(r.names))),
        ticktext=[f"{name.removeprefix('blocks.')} {family}" for name, family in zip(r.names, r.families, strict=True)],
    )
    fig.update_yaxes(title_text="timescale, tokens", type="log")
    fig.update_layout(
        title={"text": "Timescales of every layer under a held token", "subtitle": {"text": note}},
        margin={"t": 84},
        height=400,
    )
    return figures.style(fig, template)
