"""Draws a `LensTrajectory`: layers by tokens, one token through depth, cross-entropy over depth."""

from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly, show
from strobe.probes.lens.layer_axis import layer_axis, strided_layers

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.lens.trajectory import LensTrajectory

# More cells than this are drawn without their text, which is what makes a browser slow.
MAX_TEXT_CELLS = 1500
# In a cell, as far as the columns leave room for in a picture of 900 pixels, which is what an export is unless asked.
_CELL_CHARACTERS, _ROW_CHARACTERS = 8, 100
_HOVER_TOKENS = 5

# statistic -> (title, unit)
_NAMES = {
    "kl": ("KL(final ‖ lens)", "nats"),
    "entropy": ("entropy of the prediction", "nats"),
    "cross_entropy": ("cross-entropy of the next token", "nats"),
    "rank": ("rank of the model's final token", "log10 rank"),
    "probability": ("probability of the next token", "probability"),
}


def heatmap(
    t: "LensTrajectory",
    statistic: Any,
    lens: str | None,
    first: int,
    n_tokens: int,
    max_rows: int,
    zmax: float | None,
    template: str,
) -> "plotly.graph_objects.Figure":
    """See `LensTrajectory.figure`."""
    import plotly.graph_objects as go

    values, index = t.statistic(statistic, lens), t.lens_index(lens)
    n_time = values.shape[1]
    if not 0 <= first < n_time or n_tokens < 1:
        raise ValueError(
            f"{n_tokens} tokens from position {first} were asked for; the text has {n_time}; give n_tokens of 1 or "
            f"more and a first in 0..{n_time - 1}"
        )
    columns = list(range(first, min(first + n_tokens, n_time)))
    rows = strided_layers(t.n_layers, max_rows)
    cells = values[np.ix_(rows, columns)]
    with_text = cells.size <= MAX_TEXT_CELLS
    fig = go.Figure(_cells(t, statistic, cells, index, rows, columns, zmax, with_text))
    figures.missing_cells(fig, cells, columns, rows)
    fig.add_trace(_click_targets(t, index, rows, columns))
    figures.token_axis(fig, [t.tokens[c] for c in columns], first=first)
    layer_axis(fig, t.n_layers, rows, "y")
    subtitle = "; ".join([*_control_note(t, statistic, columns), *_left_out(t, rows, columns, with_text)])
    fig.update_layout(
        title={"text": f"{t.lenses[index].capitalize()} lens: {_NAMES[statistic][0]}", "subtitle": {"text": subtitle}},
        margin={"t": 84},
        dragmode=False,
        clickmode="event+select",
        hoverdistance=-1,
    )
    return figures.style(fig, template)


def _cells(
    t: "LensTrajectory",
    statistic: str,
    cells: np.ndarray,
    index: int,
    rows: list[int],
    columns: list[int],
    zmax: float | None,
    with_text: bool,
) -> Any:
    import plotly.graph_objects as go

    text: dict[str, Any] = {}
    if with_text:
        top = t.top_ids[index][np.ix_(rows, columns)][..., 0]
        room = max(3, min(_CELL_CHARACTERS, _ROW_CHARACTERS // len(columns)))
        words = [[escape_plotly(show(t.vocabulary[int(i)], room)) for i in row] for row in top]
        text = {"text": words, "texttemplate": "%{text}", "textfont": {"family": figures.MONO, "size": 11}}
    probability = statistic == "probability"
    return go.Heatmap(
        z=np.log10(cells) if statistic == "rank" else cells,
        x=columns,
        y=rows,
        hoverinfo="skip",
        colorscale=figures.SEQUENTIAL if probability else figures.SEQUENTIAL_REVERSED,
        zmin=0.0,
        zmax=1.0 if probability else zmax,
        colorbar={"title": {"text": _NAMES[statistic][1]}},
        xgap=1,
        ygap=1,
        name="lens",
        **text,
    )


def _click_targets(t: "LensTrajectory", index: int, rows: list[int], columns: list[int]) -> Any:
    """Invisible squares over the cells: Streamlit reports clicks on markers, never on a heatmap, so they carry the
    hover too.
    """
    import plotly.graph_objects as go

    grid = [(layer, position) for layer in rows for position in columns]
    return go.Scatter(
        x=[position for _, position in grid],
        y=[layer for layer, _ in grid],
        mode="markers",
        marker={"symbol": "square-open", "size": 18, "opacity": 0, "line": {"width": 2}},
        selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 0}},
        customdata=[_hover(t, index, layer, position) for layer, position in grid],
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
        name="cells",
    )


def _hover(t: "LensTrajectory", index: int, layer: int, position: int) -> str:
    at = (index, layer, position)
    top = [
        f"{escape_plotly(show(t.vocabulary[int(i)], 24))}  {p:.1%}"
        for i, p in zip(t.top_ids[at][:_HOVER_TOKENS], t.top_probabilities[at][:_HOVER_TOKENS], strict=True)
    ]
    lines = [
        f"layer {layer} of {t.n_layers}, position {position}, token {escape_plotly(show(t.tokens[position], 24))}",
        f"KL(final ‖ lens) {t.kl[at]:.3g} nats, entropy {t.entropy[at]:.3g} nats",
        f"rank of the final token {t.final_rank[at]}",
    ]
    if np.isfinite(t.cross_entropy[at]):
        following = escape_plotly(show(t.tokens[position + 1], 24))
        lines.append(
            f"next token {following}: rank {t.target_rank[at]:.0f}, cross-entropy {t.cross_entropy[at]:.3g} nats"
        )
    return "<br>".join([*lines, *top])


def _control_note(t: "LensTrajectory", statistic: str, columns: list[int]) -> list[str]:
    values = {"kl": t.control_kl, "cross_entropy": t.control_cross_entropy}.get(statistic)
    if values is None:
        return []
    shown = values[: t.n_layers, columns]
    shown = shown[np.isfinite(shown)]
    return [f"control: mean {shown.mean():.3g} nats ({_short(t)})"] if shown.size else []


def _short(t: "LensTrajectory") -> str:
    return (t.provenance.control or "none").split(":")[0]


def _left_out(t: "LensTrajectory", rows: list[int], columns: list[int], with_text: bool) -> list[str]:
    notes = []
    if len(columns) < len(t.token_ids):
        notes.append(f"tokens {columns[0]} to {columns[-1]} of {len(t.token_ids)}")
    if len(rows) <= t.n_layers:
        notes.append(f"{len(rows)} of {t.n_layers + 1} layers")
    if not with_text:
        notes.append(f"no text in more than {MAX_TEXT_CELLS} cells")
    return notes


def token_heatmap(t: "LensTrajectory", position: int, lens: str | None, template: str) -> "plotly.graph_objects.Figure":
    """See `LensTrajectory.token_figure`."""
    import plotly.graph_objects as go

    n_time, index = len(t.token_ids), t.lens_index(lens)
    if not -n_time <= position < n_time:
        raise ValueError(
            f"position {position} was asked for; the text has {n_time} tokens; give one in 0..{n_time - 1}"
        )
    position %= n_time
    p, ids = t.top_probabilities[index, :, position], t.top_ids[index, :, position]
    words = [[escape_plotly(show(t.vocabulary[int(i)], 12)) for i in row] for row in ids]
    fig = go.Figure(
        go.Heatmap(
            z=p,
            x=list(range(1, p.shape[1] + 1)),
            y=list(range(t.n_layers + 1)),
            text=words,
            texttemplate="%{text}",
            textfont={"family": figures.MONO, "size": 11},
            colorscale=figures.SEQUENTIAL,
            zmin=0.0,
            zmax=1.0,
            colorbar={"title": {"text": "probability"}},
            hovertemplate="layer %{y}, rank %{x}: %{text} %{z:.2%}<extra></extra>",
            xgap=1,
            ygap=1,
        )
    )
    fig.update_xaxes(title_text="rank in the lens's prediction", dtick=1, showgrid=False)
    layer_axis(fig, t.n_layers, list(range(t.n_layers + 1)), "y")
    token = escape_plotly(show(t.tokens[position], 24))
    final = escape_plotly(show(t.vocabulary[int(t.top_ids[index, -1, position, 0])], 24))
    fig.update_layout(
        title={
            "text": f"{t.lenses[index].capitalize()} lens: predictions after token {position}, {token}",
            "subtitle": {
                "text": f"the model's own answer: {final}; each row shows its {p.shape[1]} most probable tokens"
            },
        },
        margin={"t": 84},
    )
    return figures.style(fig, template)


def curve(t: "LensTrajectory", template: str) -> "plotly.graph_objects.Figure":
    """See `LensTrajectory.curve_figure`."""
    import plotly.graph_objects as go

    layers = list(range(t.n_layers + 1))
    palette = figures.colors(template)
    fig = go.Figure()
    for i, lens in enumerate(t.lenses):
        style: dict[str, Any] = {"color": palette[i], "dash": figures.DASHES[i]}
        marker = {"symbol": figures.SYMBOLS[i], "color": palette[i]}
        fig.add_scatter(x=layers, y=t.curve(lens), name=f"{lens} lens", mode="lines+markers", line=style, marker=marker)
    fig.add_scatter(
        x=layers,
        y=t.control_curve(),
        name=f"control ({_short(t)})",
        mode="lines",
        line={"color": figures.CONTROL_COLOR, "dash": "dot"},
    )
    fig.add_hline(y=float(t.curve()[-1]), line={"dash": "dashdot", "width": 1}, annotation_text="the model itself")
    layer_axis(fig, t.n_layers, strided_layers(t.n_layers, 24), "x")
    fig.update_yaxes(title_text=f"cross-entropy of the text ({t.unit})", rangemode="tozero")
    fig.update_layout(title_text=f"Cross-entropy after each layer, {len(t.token_ids)} tokens")
    return figures.style(fig, template)
