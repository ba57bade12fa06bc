"""Draws a `DepthDynamics`: motion through depth, updates, similarities of blocks with their phases."""

from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import figures
from strobe.probes.depth.phases import shuffled_shares
from strobe.probes.geometry.figures import LEGEND_BELOW

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.depth.result import DepthDynamics, Of


def motion(r: "DepthDynamics", template: str) -> "plotly.graph_objects.Figure":
    """See `DepthDynamics.figure`."""
    from plotly.subplots import make_subplots

    titles = ("Directional convergence", "Angular speed")
    fig = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.12)
    depth = np.arange(len(r.convergence))
    for column, (x, name) in enumerate(((depth, "convergence"), (depth[1:] - 0.5, "speed")), 1):
        for control in (True, False):
            values = getattr(r, f"{name}_control" if control else name)
            _line(fig, x, values, control, template, column)
    fig.update_xaxes(title_text=f"depth (blocks passed, of {len(r.kinds)})", dtick=max(1, len(depth) // 12))
    fig.update_yaxes(title_text="cosine to the last state", row=1, col=1)
    fig.update_yaxes(title_text="turn (degrees a block)", rangemode="tozero", row=1, col=2)
    fig.update_layout(
        title={
            "text": "How tokens move through depth",
            "subtitle": {"text": f"{_count(r)}: mean and quartiles; position 0 is left out"},
        },
        margin={"t": 120, "b": 110},
        legend=LEGEND_BELOW,
    )
    return figures.style(fig, template)


def _line(fig: Any, x: np.ndarray, values: np.ndarray, control: bool, template: str, column: int) -> None:
    known = [v[np.isfinite(v)] for v in values]
    low, middle, high = (
        np.array([f(v) if v.size else np.nan for v in known])
        for f in (lambda v: np.quantile(v, 0.25), np.mean, lambda v: np.quantile(v, 0.75))
    )
    fig.add_scatter(
        x=x + (0.06 if control else 0),
        y=middle,
        error_y={
            "type": "data", "symmetric": False, "array": np.maximum(high - middle, 0),
            "arrayminus": np.maximum(middle - low, 0), "width": 0, "thickness": 1,
        },
        mode="lines+markers",
        name="control: another token's direction" if control else "the token's own",
        legendgroup=str(control),
        showlegend=column == 1,
        line={
            "color": figures.CONTROL_COLOR if control else figures.colors(template)[0],
            "dash": "dot" if control else "solid",
        },
        marker={"symbol": "x" if control else "circle"},
        row=1,
        col=column,
    )  # fmt: skip


def updates(r: "DepthDynamics", template: str) -> "plotly.graph_objects.Figure":
    """See `DepthDynamics.update_figure`."""
    from plotly.subplots import make_subplots

    titles = ("Stable rank of the updates", "Token coherence of the updates")
    fig = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.12)
    blocks = np.arange(len(r.kinds))
    for column, name in enumerate(("stable_rank", "coherence"), 1):
        for control in (True, False):
            fig.add_scatter(
                x=blocks,
                y=getattr(r, f"{name}_control" if control else name),
                mode="lines+markers",
                name="control: random directions of equal length" if control else "updates",
                legendgroup=str(control),
                showlegend=column == 1,
                line={
                    "color": figures.CONTROL_COLOR if control else figures.colors(template)[0],
                    "dash": "dot" if control else "solid",
                },
                marker={"symbol": "x" if control else "circle"},
                row=1,
                col=column,
            )
    fig.update_xaxes(title_text="block (from 0)", dtick=max(1, len(blocks) // 12))
    fig.update_yaxes(title_text="‖U‖²_F / ‖U‖²₂ (directions)", type="log", row=1, col=1)
    fig.update_yaxes(title_text="mean cosine of two tokens' updates", row=1, col=2)
    fig.update_layout(
        title={"text": "What each block writes", "subtitle": {"text": f"updates of {_count(r)}"}},
        margin={"t": 120, "b": 110},
        legend=LEGEND_BELOW,
    )
    return figures.style(fig, template)


def similarities(r: "DepthDynamics", of: "Of", k: int | None, template: str) -> "plotly.graph_objects.Figure":
    """See `DepthDynamics.similarity_figure`."""
    import plotly.graph_objects as go

    z, control = r.similarity(of), r.similarity_state_control[1:, 1:] if of == "state" else r.similarity_update_control
    n = len(z)
    fig = go.Figure(
        go.Heatmap(
            z=z, customdata=control, **figures.diverging(z, 1.0), colorbar={"title": {"text": "mean cosine"}},
            hovertemplate="blocks %{y} and %{x}: %{z:.3f}; another token's %{customdata:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figures.missing_cells(fig, z)
    said = ""
    if k is not None:
        best = r.phases(k, of)
        for start in best.starts[1:]:
            fig.add_vline(x=start - 0.5, line={"width": 2})
            fig.add_hline(y=start - 0.5, line={"width": 2})
        said = f"; lines: the best {k} contiguous phases, which explain {best.share:.0%}"
    off = control[~np.eye(n, dtype=bool)]
    aside = f"control, another token's: {off.mean():.2f} on average off the diagonal" if off.size else "one block"
    fig.update_xaxes(title_text="block (from 0)", dtick=max(1, n // 16), showgrid=False, constrain="domain")
    fig.update_yaxes(title_text="block (from 0)", dtick=max(1, n // 16), showgrid=False, scaleanchor="x")
    fig.update_layout(
        title={"text": f"Similarity of the blocks by {of}", "subtitle": {"text": aside + said}}, margin={"t": 100}
    )
    return figures.style(fig, template)


def explained(r: "DepthDynamics", of: "Of", template: str) -> "plotly.graph_objects.Figure":
    """See `DepthDynamics.phase_figure`."""
    import plotly.graph_objects as go

    n = len(r.kinds)
    counts = list(range(1, min(n, 12) + 1))
    chance = [shuffled_shares(r.similarity(of), k) for k in counts]
    low, middle, high = (np.array([f(c) for c in chance]) for f in (np.min, np.mean, np.max))
    fig = go.Figure()
    fig.add_scatter(
        x=counts, y=middle, mode="lines+markers", name="control: blocks in random order (mean, range of 200)",
        error_y={"type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low},
        line={"color": figures.CONTROL_COLOR, "dash": "dot"}, marker={"symbol": "x"},
    )  # fmt: skip
    fig.add_scatter(
        x=counts, y=[r.phases(k, of).share for k in counts], mode="lines+markers", name="blocks in their order",
        line={"color": figures.colors(template)[0]},
    )  # fmt: skip
    fig.update_xaxes(title_text="contiguous phases k", dtick=1)
    fig.update_yaxes(title_text="explained (1 − scatter within / scatter of one phase)", range=[-0.02, 1.05])
    fig.update_layout(
        title={
            "text": f"What k phases of depth explain of the similarity by {of}",
            "subtitle": {"text": f"exact division of {n} blocks; with few blocks, random orders do well too"},
        },
        margin={"t": 100, "b": 110},
        legend=LEGEND_BELOW,
    )
    return figures.style(fig, template)


def _count(r: "DepthDynamics") -> str:
    return f"{r.n_tokens} tokens{', ' if r.partial else ''}{r.partial}"
