"""Figures of a layer's carry along a text, and of what an edit of it does. Drawn from results; no model."""

from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly, show

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from strobe.probes.states import StateIntervention, StateTrace

# Above this many tokens the ticks of an axis would overlap.
_LABELLED = 80
# Lines that can still be told apart.
_MOST_LINES = 16


def norms(trace: "StateTrace", *, per_head: bool, template: str) -> "go.Figure":
    """Norm of the carry after each token: the whole memory, or each head; grey is the shuffled text."""
    import plotly.graph_objects as go

    from strobe.probes.states import total_norm

    fig, x = go.Figure(), list(range(len(trace.tokens)))
    hover = _hover(trace.tokens)
    fig.add_scatter(
        x=x,
        y=total_norm(trace.control),
        mode="lines",
        name="same tokens shuffled (control)",
        customdata=hover,
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
                customdata=hover,
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
            customdata=hover,
            marker={"size": 5},
            line={"color": figures.colors(template)[0]},
            hovertemplate="%{customdata}<br>norm %{y:.4g}<extra></extra>",
        )
    which = f"each head of {trace.memory}" if per_head and heads > 1 else trace.memory
    if per_head and heads > _MOST_LINES:
        which = f"heads 0 to {_MOST_LINES - 1} of {heads} of {trace.memory}"
    fig.update_yaxes(title_text=f"Euclidean norm of {escape_plotly(trace.memory)}", rangemode="tozero")
    _time_axis(fig, trace.tokens, "after input token")
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
            customdata=np.tile(np.array(_hover(trace.tokens), dtype=object), (z.shape[0], 1)),
            hovertemplate=f"%{{customdata}}<br>{row} %{{y}}: {unit} %{{z:.4g}}<extra></extra>",
        )
    )
    figures.missing_cells(fig, z)
    _time_axis(fig, trace.tokens, "after input token")
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
    hover = [[f"token {t} {words[t]}<br>reads {s} {words[s]}" for s in range(len(words))] for t in range(len(words))]
    name = "mean over heads of |E|" if head is None else f"E of head {head}"
    fig = go.Figure(
        go.Heatmap(
            z=z,
            x=list(range(len(words))),
            y=list(range(len(words))),
            customdata=hover,
            hoverongaps=False,
            hovertemplate="%{customdata}<br>%{z:.4g}<extra></extra>",
            colorbar={"title": {"text": name}},
            **colour,
        )
    )
    _time_axis(fig, trace.tokens, "written by token s")
    _time_axis(fig, trace.tokens, "read at token t", axis="y")
    fig.update_yaxes(autorange="reversed", range=None)
    title = f"Effective attention, layer {trace.layer} ({trace.mixer}): read_t = Σ_s E[t, s] v_s"
    fig.update_layout(title_text=title, height=min(1100, max(420, 190 + 17 * len(words))))
    return figures.style(fig, template)


def distributions(result: "StateIntervention", *, at: str, template: str) -> "go.Figure":
    """Bars of next-token probability: untouched, edited, and the mean and range of the random edits."""
    import plotly.graph_objects as go

    if at not in ("first", "end"):
        raise ValueError(f"the prediction at {at!r} was asked for; there are 'first' and 'end'")
    words, p = (
        (result.first_tokens, result.first_probabilities)
        if at == "first"
        else (result.end_tokens, result.end_probabilities)
    )
    kl = result.first_kl if at == "first" else result.end_kl
    position = result.position + 1 if at == "first" else len(result.tokens) - 1
    y, random = list(range(len(words)))[::-1], p[2:]
    colours, fig = figures.colors(template), go.Figure()
    reach = {
        "type": "data",
        "symmetric": False,
        "array": random.max(0) - random.mean(0),
        "arrayminus": random.mean(0) - random.min(0),
    }
    for name, values, colour, bars in (
        (
            f"random, mean and range of {len(random)}: KL {np.median(kl[2:]):.3g} nats",
            random.mean(0),
            figures.CONTROL_COLOR,
            reach,
        ),
        (f"edited: KL {kl[1]:.3g} nats", p[1], colours[1], None),
        ("untouched", p[0], colours[0], None),
    ):
        fig.add_bar(
            x=values,
            y=y,
            orientation="h",
            name=name,
            marker={"color": colour},
            error_x=bars,
            hovertemplate=f"{name.split(':')[0]}<br>p = %{{x:.4f}}<extra></extra>",
        )
    fig.update_xaxes(title_text="next-token probability", rangemode="tozero")
    ticks = [escape_plotly(show(w, 14)) for w in words]
    fig.update_yaxes(
        title_text="next token",
        tickmode="array",
        tickvals=y,
        ticktext=ticks,
        showgrid=False,
        tickfont={"family": figures.MONO},
    )
    place = "First prediction the edit can reach" if at == "first" else "Prediction at the last token"
    fig.update_layout(
        title_text=f"{place}: after token {position} “{escape_plotly(show(result.tokens[position], 16))}”",
        barmode="group",
        bargap=0.25,
        # One height for both places, so that they stand side by side.
        height=170 + 44 * max(len(result.first_tokens), len(result.end_tokens)),
        legend={"traceorder": "reversed", "y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"},
        margin={"b": 110},
    )
    return figures.style(fig, template)


def divergence(result: "StateIntervention", *, template: str) -> "go.Figure":
    """KL(untouched || run) at every later token: the edit, and the range and median of the random edits."""
    import plotly.graph_objects as go

    start = result.position + 1
    x, fig = list(range(start, len(result.tokens))), go.Figure()
    random, hover = result.kl[2:, start:], _hover(result.tokens)[start:]
    line = {"mode": "lines", "hoverinfo": "skip", "line": {"width": 0}}
    fig.add_scatter(x=x, y=random.min(0), showlegend=False, **line)
    fig.add_scatter(
        x=x,
        y=random.max(0),
        fill="tonexty",
        fillcolor="rgba(138,143,152,0.3)",
        name=f"random edits, range of {len(random)}",
        **line,
    )
    fig.add_scatter(
        x=x,
        y=np.median(random, 0),
        mode="lines+markers",
        name="random edits, median",
        customdata=hover,
        marker={"size": 4},
        line={"color": figures.CONTROL_COLOR, "dash": "dot"},
        hovertemplate="%{customdata}<br>random, median: %{y:.4g} nats<extra></extra>",
    )
    fig.add_scatter(
        x=x,
        y=result.kl[1, start:],
        mode="lines+markers",
        name="edited",
        customdata=hover,
        line={"color": figures.colors(template)[1]},
        hovertemplate="%{customdata}<br>edited: %{y:.4g} nats<extra></extra>",
    )
    fig.update_yaxes(title_text="KL(untouched ‖ run), nats", rangemode="tozero")
    _time_axis(fig, result.tokens[start:], "prediction made at token", first=start)
    fig.update_layout(title_text="How far the predictions are from the untouched run", height=340)
    return figures.style(fig, template)


def _time_axis(fig: Any, tokens: list[str], title: str, *, axis: Any = "x", first: int = 0) -> None:
    if len(tokens) <= _LABELLED:
        figures.token_axis(fig, tokens, axis, first=first, title=title)
        return
    update = fig.update_xaxes if axis == "x" else fig.update_yaxes
    update(
        title_text=f"{title} (position)", range=[first - 0.5, first + len(tokens) - 0.5], showgrid=False, zeroline=False
    )


def _hover(tokens: list[str]) -> list[str]:
    return [f"position {i} · {escape_plotly(show(token, 20))}" for i, token in enumerate(tokens)]
