"""Figures of what an edit of a carry does to the predictions. Drawn from results; no model."""

from typing import TYPE_CHECKING

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly, show
from strobe.probes.states.text_axis import hover, time_axis

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from strobe.probes.states.intervention_result import StateIntervention


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
    random, pointed = result.kl[2:, start:], hover(result.tokens)[start:]
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
        customdata=pointed,
        marker={"size": 4},
        line={"color": figures.CONTROL_COLOR, "dash": "dot"},
        hovertemplate="%{customdata}<br>random, median: %{y:.4g} nats<extra></extra>",
    )
    fig.add_scatter(
        x=x,
        y=result.kl[1, start:],
        mode="lines+markers",
        name="edited",
        customdata=pointed,
        line={"color": figures.colors(template)[1]},
        hovertemplate="%{customdata}<br>edited: %{y:.4g} nats<extra></extra>",
    )
    fig.update_yaxes(title_text="KL(untouched ‖ run), nats", rangemode="tozero")
    time_axis(fig, result.tokens[start:], "prediction made at token", first=start)
    fig.update_layout(title_text="How far the predictions are from the untouched run", height=340)
    return figures.style(fig, template)
