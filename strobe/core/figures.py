"""How every figure looks: one Plotly template, light and dark, colour-blind safe, and the axis for tokens.

The colours are Okabe and Ito's (2008, Color Universal Design), ordered so that the first four keep a contrast of 3:1
with the background and all of them differ in lightness; a line or marker still gets a dash or shape of its own
(`DASHES`, `SYMBOLS`). A figure always names its template: importing streamlit changes Plotly's default one.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from strobe.core.tokens import escape_plotly, show

if TYPE_CHECKING:
    import plotly.graph_objects

LIGHT, DARK = "strobe_light", "strobe_dark"

# Blue, vermilion, green, purple, then those too pale for thin lines on white.
COLORS_LIGHT = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
COLORS_DARK = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#F0E442", "#FFFFFF", "#0072B2")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x", "star", "hexagon")
# What a result is compared with: never a colour of the data.
CONTROL_COLOR = "#8A8F98"

SEQUENTIAL = "Cividis"
# For entropy and other measures of doubt: sure cells are light.
SEQUENTIAL_REVERSED = "Cividis_r"
# Blue below, white at zero, vermilion above; equally light on both sides, so that neither sign looks larger.
DIVERGING: tuple[tuple[float, str], ...] = (
    (0.0, "#005280"),
    (0.25, "#5EA6CE"),
    (0.5, "#FFFFFF"),
    (0.75, "#E08943"),
    (1.0, "#813900"),
)

# Quoted, because a part of a name may not begin with a digit: without quotes a browser drops the whole list.
SANS = "'Source Sans', 'Source Sans 3', 'Source Sans Pro', Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def register_templates() -> None:
    """Make ``strobe_light`` and ``strobe_dark`` known to Plotly by name. Doing it again changes nothing."""
    import plotly.io as pio

    for name, dark in ((LIGHT, False), (DARK, True)):
        if name not in pio.templates:
            pio.templates[name] = _template(dark)


def style(fig: "plotly.graph_objects.Figure", template: str = LIGHT) -> "plotly.graph_objects.Figure":
    """Give `fig` a template, ``strobe_light`` or ``strobe_dark``; returns `fig`. Raises ValueError for another name."""
    if template not in (LIGHT, DARK):
        raise ValueError(f"template {template!r} is not one of ours; give {LIGHT!r} or {DARK!r}")
    register_templates()
    return fig.update_layout(template=template)


def colors(template: str = LIGHT) -> tuple[str, ...]:
    """The line colours of a template, strongest contrast first."""
    return COLORS_DARK if template == DARK else COLORS_LIGHT


def token_axis(
    fig: "plotly.graph_objects.Figure",
    tokens: Sequence[str],
    axis: Literal["x", "y"] = "x",
    *,
    first: int = 0,
    title: str = "input token",
    limit: int = 10,
    **selector: Any,
) -> "plotly.graph_objects.Figure":
    """Label an axis of `fig` with tokens; returns `fig`. Traces put token i at the number ``first + i``.

    Positions are numbers with tick text, because Plotly merges equal category labels and "the cat the" would lose a
    column. Tokens are made visible, escaped and cut to `limit` characters. `selector` (``row``, ``col``) goes to
    ``update_xaxes``.
    """
    positions = [first + i for i in range(len(tokens))]
    update = fig.update_xaxes if axis == "x" else fig.update_yaxes
    return update(
        title_text=title,
        tickmode="array",
        tickvals=positions,
        ticktext=[escape_plotly(show(token, limit)) for token in tokens],
        showgrid=False,
        zeroline=False,
        range=[first - 0.5, first + len(tokens) - 0.5],
        **selector,
    )


def diverging(values: Any, limit: float | int | None = None) -> dict[str, Any]:
    """Heatmap options for signed values: white at 0 and the same distance either way, so that colours can be compared.

    `limit` is the value of the full colour; None for the largest absolute finite one. NaN and infinities do not count.
    """
    import numpy as np

    finite = np.abs(np.asarray(values, dtype=float))
    finite = finite[np.isfinite(finite)]
    reach = float(limit if limit is not None else finite.max() if finite.size else 0.0)
    if not math.isfinite(reach) or reach <= 0:
        # All zero: any range will do, as long as zero is its middle.
        reach = 1.0
    return {"colorscale": [list(stop) for stop in DIVERGING], "zmid": 0.0, "zmin": -reach, "zmax": reach}


def missing_cells(
    fig: "plotly.graph_objects.Figure",
    z: Any,
    x: Sequence[float | int] | None = None,
    y: Sequence[float | int] | None = None,
    **selector: Any,
) -> "plotly.graph_objects.Figure":
    """Mark the cells of a heatmap that are not finite with their own sign (``NaN``, ``∞``, ``−∞``); returns `fig`.

    `z` is [rows, columns], `x` and `y` the numbers of its columns and rows (0, 1, ... when None). Plotly leaves such
    cells blank, which looks like nothing happened there.
    """
    import numpy as np
    import plotly.graph_objects as go

    z = np.asarray(z, dtype=float)
    rows, columns = np.nonzero(~np.isfinite(z))
    if not rows.size:
        return fig
    signs = ["NaN" if np.isnan(value) else "∞" if value > 0 else "−∞" for value in z[rows, columns]]
    return fig.add_trace(
        go.Scatter(
            x=columns.tolist() if x is None else [x[i] for i in columns.tolist()],
            y=rows.tolist() if y is None else [y[i] for i in rows.tolist()],
            mode="text",
            text=signs,
            textfont={"size": 10, "color": CONTROL_COLOR},
            hovertemplate="%{text}<extra></extra>",
            showlegend=False,
            name="not finite",
        ),
        **selector,
    )


def _template(dark: bool) -> "plotly.graph_objects.layout.Template":
    import plotly.graph_objects as go

    text, grid, paper = ("#E6E6E6", "#3A3D44", "#14171C") if dark else ("#1F2328", "#E3E6EA", "#FFFFFF")
    axis = {
        "gridcolor": grid,
        "linecolor": text,
        "zerolinecolor": grid,
        "tickcolor": text,
        "ticks": "outside",
        "ticklen": 4,
        "showline": True,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
    }
    layout = {
        "font": {"family": SANS, "size": 13, "color": text},
        "title": {"x": 0, "xref": "paper", "xanchor": "left", "y": 0.97, "yanchor": "top", "font": {"size": 15}},
        "colorway": list(COLORS_DARK if dark else COLORS_LIGHT),
        "colorscale": {
            "sequential": SEQUENTIAL,
            "sequentialminus": SEQUENTIAL_REVERSED,
            "diverging": [list(stop) for stop in DIVERGING],
        },
        "paper_bgcolor": paper,
        "plot_bgcolor": paper,
        "xaxis": axis,
        "yaxis": axis,
        "margin": {"l": 60, "r": 20, "t": 48, "b": 52},
        "hoverlabel": {"font": {"family": MONO, "size": 12}, "align": "left", "namelength": -1},
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest",
        "uirevision": "keep",
    }
    heatmap = {"colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"side": "right", "font": {"size": 13}}}}
    return go.layout.Template(layout=layout, data={"heatmap": [heatmap]})
