"""Figures of a layer's carry along a text. Drawn from results; no model."""

from typing import TYPE_CHECKING

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly, show
from strobe.probes.states.text_axis import hover, time_axis
from strobe.probes.states.trace_result import total_norm

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from strobe.probes.states.trace_result import StateTrace

# Lines that can still be told apart.
_MOST_LINES = 16


def norms(trace: "StateTrace", *, per_head: bool, template: str) -> "go.Figure":
    """Norm of the carry after each token: the whole memory, or each head; grey is the shuffled text."""
    import plotly.graph_objects as go

    fig, x = go.Figure(), list(range(len(trace.tokens)))
    pointed = hover(trace.tokens)
    fig.add_scatter(
        x=x,
        y=total_norm(trace.control),
        mode="lines",
        name="same tokens shuffled (control)",
        customdata=pointed,
        line={"color": figures.CONTROL_COLOR, "dash": "dot"},
        hovertemplate="shuffled, position %{x}<br>norm %{y:.4g}<extra></extra>",
    )
    heads = trace.norms.shape[1]
    if per_head and heads > 1:
        for head in range(min(heads, _MOST_LINES)):
            fig.add_scatter(
                x=x,
                y=trace.norms[:, head],
                mode="lines+markers",
                name=f"head {head}",
                customdata=pointed,
                marker={"size": 4},
                line={"dash": figures.DASHES[(head // 8) % len(figures.DASHES)]},
                hovertemplate=f"%{{customdata}}<br>head {head}: norm %{{y:.4g}}<extra></extra>",
            )
    else:
        fig.add_scatter(
            x=x,
            y=total_norm(trace.norms),
            mode="lines+markers",
            name="this text",
            customdata=pointed,
            marker={"size": 5},
            line={"color": figures.colors(template)[0]},
            hovertemplate="%{customdata}<br>norm %{y:.4g}<extra></extra>",
        )
    which = f"each head of {trace.memory}" if per_head and heads > 1 else trace.memory
    if per_head and heads > _MOST_LINES:
        which = f"heads 0 to {_MOST_LINES - 1} of {heads} of {trace.memory}"
    fig.update_yaxes(title_text=f"Euclidean norm of {escape_plotly(trace.memory)}", rangemode="tozero")
    time_axis(fig, trace.tokens, "after input token")
    fig.update_layout(
        title_text=f"Norm of the carry, {escape_plotly(which)}, layer {trace.layer} ({trace.mixer})", height=360
    )
    return figures.style(fig, template)


def channel_map(trace: "StateTrace", *, what: str, template: str) -> "go.Figure":
    """Heat map against tokens of the memory's channels (values of a vector, row norms of matrices) or of its heads."""
    import plotly.graph_objects as go

    if what not in ("channels", "heads"):
        raise ValueError(f"a map of {what!r} was asked for; there are maps of 'channels' and 'heads'")
    z = (trace.channels if what == "channels" else trace.norms).T
    signed = what == "channels" and trace.signed
    colour = figures.diverging(z) if signed else {"colorscale": figures.SEQUENTIAL, "zmin": 0}
    rows = "channel" if trace.norms.shape[1] == 1 or what == "heads" else "head × key channel"
    unit, row = "value" if signed else "norm", "head" if what == "heads" else "row"
    fig = go.Figure(
        go.Heatmap(
            z=z,
            x=list(range(z.shape[1])),
            y=list(range(z.shape[0])),
            colorbar={"title": {"text": unit}},
            **colour,
            customdata=np.tile(np.array(hover(trace.tokens), dtype=object), (z.shape[0], 1)),
            hovertemplate=f"%{{customdata}}<br>{row} %{{y}}: {unit} %{{z:.4g}}<extra></extra>",
        )
    )
    figures.missing_cells(fig, z)
    time_axis(fig, trace.tokens, "after input token")
    fig.update_yaxes(title_text="head" if what == "heads" else rows, showgrid=False, range=[-0.5, z.shape[0] - 0.5])
    shown = "Values" if signed else "Norms"
    title = f"{shown} in the carry {escape_plotly(trace.memory)}, layer {trace.layer} ({trace.mixer})"
    fig.update_layout(title_text=title, height=min(640, 220 + 10 * z.shape[0]))
    return figures.style(fig, template)


def attention(trace: "StateTrace", *, head: int | None, template: str) -> "go.Figure":
    """Effective attention of one head (signed), or the mean over heads of its absolute value."""
    import plotly.graph_objects as go

    if trace.attention is None:
        raise ValueError(f"effective attention was asked for, and this trace has none: {trace.attention_note}")
    heads = trace.attention.shape[0]
    if head is not None and not 0 <= head < heads:
        raise ValueError(f"effective attention of head {head} was asked for; there are heads 0 to {heads - 1}")
    z = np.abs(trace.attention).mean(0) if head is None else trace.attention[head].astype(float)
    # What cannot be (a later token) is left empty, so that it is not read as a measured zero.
    z = np.where(np.tril(np.ones_like(z, dtype=bool)), z, np.nan)
    colour = {"colorscale": figures.SEQUENTIAL, "zmin": 0} if head is None else figures.diverging(z)
    words = [escape_plotly(show(t, 16)) for t in trace.tokens]
    cells = [[f"token {t} {words[t]}<br>reads {s} {words[s]}" for s in range(len(words))] for t in range(len(words))]
    name = "mean over heads of |E|" if head is None else f"E of head {head}"
    fig = go.Figure(
        go.Heatmap(
            z=z,
            x=list(range(len(words))),
            y=list(range(len(words))),
            customdata=cells,
            hoverongaps=False,
            hovertemplate="%{customdata}<br>%{z:.4g}<extra></extra>",
            colorbar={"title": {"text": name}},
            **colour,
        )
    )
    time_axis(fig, trace.tokens, "written by token s")
    time_axis(fig, trace.tokens, "read at token t", axis="y")
    fig.update_yaxes(autorange="reversed", range=None)
    title = f"Effective attention, layer {trace.layer} ({trace.mixer}): read_t = Σ_s E[t, s] v_s"
    fig.update_layout(title_text=title, height=min(1100, max(420, 190 + 17 * len(words))))
    return figures.style(fig, template)
