"""Draws a `LatentKnowledge`: AUROC by depth over its controls, and fitted-in against tested-in."""

from typing import TYPE_CHECKING

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.latent_knowledge.result import LatentKnowledge

WORDS = {
    "lr": "logistic regression",
    "mean": "difference of means",
    "lda": "linear discriminant",
    "ccs": "CCS",
    "crc": "CRC",
    "vinc": "VINC",
}
# Over a panel that is no wider than this.
_SHORT = {"lr": "logistic", "mean": "means", "lda": "LDA", "ccs": "CCS", "crc": "CRC", "vinc": "VINC"}
_AUROC = "AUROC for the truth"


def by_depth(s: "LatentKnowledge", train: int, test: int, template: str) -> "plotly.graph_objects.Figure":
    """See `LatentKnowledge.figure`."""
    import plotly.graph_objects as go

    fig, palette, layers = go.Figure(), figures.colors(template), list(s.layers)
    drawn = s.random[:, train, :, test]
    fig.add_scatter(
        x=[*layers, *reversed(layers)],
        y=[*drawn.max(0), *drawn.min(0)[::-1]],
        fill="toself",
        mode="lines",
        line={"width": 0, "color": figures.CONTROL_COLOR},
        opacity=0.35,
        name=f"{len(drawn)} random directions",
        hoverinfo="skip",
    )
    for y, name, dash in (
        (s.untrained[:, train, :, test], "weights permuted", "dot"),
        (s.shuffled[:, :, train, :, test].reshape(-1, len(layers)), "labels shuffled", "dash"),
    ):
        for i, line in enumerate(line for line in y if np.isfinite(line).all()):
            fig.add_scatter(
                x=layers,
                y=line,
                mode="lines",
                line={"color": figures.CONTROL_COLOR, "dash": dash, "width": 1},
                name=name,
                legendgroup=name,
                showlegend=i == 0,
            )
    mean, (low, high) = s.auroc()[:, train, :, test], s.interval()[:, :, train, :, test]
    for i, probe in enumerate(s.probes):
        fig.add_scatter(
            x=layers,
            y=mean[i],
            error_y={
                "type": "data", "symmetric": False, "array": high[i] - mean[i], "arrayminus": mean[i] - low[i],
                "width": 2, "thickness": 1,
            },
            mode="lines+markers",
            line={"color": palette[i % len(palette)], "dash": figures.DASHES[i % len(figures.DASHES)]},
            marker={"symbol": figures.SYMBOLS[i % len(figures.SYMBOLS)], "size": 8},
            name=WORDS[probe],
        )  # fmt: skip
    own = float(s.output_auroc()[test])
    fig.add_hline(y=own, line={"dash": "dashdot", "width": 1}, annotation_text=f"the model's own answer, {own:.2f}")
    fig.add_hline(y=0.5, line={"width": 1, "color": figures.CONTROL_COLOR})
    fig.update_xaxes(title_text="layer", tickmode="array", tickvals=layers)
    fig.update_yaxes(title_text=_AUROC, range=[-0.04, 1.04])
    fitted, tested = escape_plotly(s.train_contexts[train]), escape_plotly(s.test_contexts[test])
    fig.update_layout(
        title={
            "text": f"Probes at {s.point}, fitted in {fitted}, tested in {tested}",
            "subtitle": {
                "text": f"mean and 95 % bootstrap interval over {s.truth.shape[1]} problems; 1: finds what is true, "
                f"0: its opposite; grey: controls{'; ' if s.partial else ''}{s.partial}"
            },
        },
        legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"},
        margin={"t": 84},
    )
    return figures.style(fig, template)


def transfer(s: "LatentKnowledge", layer: int, template: str) -> "plotly.graph_objects.Figure":
    """See `LatentKnowledge.transfer_figure`."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    panels = [*(_SHORT[p] for p in s.probes), "random"]
    values = np.concatenate([s.auroc()[:, :, layer], s.random.mean(0)[None, :, layer]])
    fig = make_subplots(rows=1, cols=len(panels), subplot_titles=panels, horizontal_spacing=0.02)
    columns, rows = list(range(len(s.test_contexts))), list(range(len(s.train_contexts)))
    for i, z in enumerate(values, 1):
        fig.add_trace(
            go.Heatmap(
                z=z,
                x=columns,
                y=rows,
                text=[[f"{v:.2f}" for v in row] for row in z],
                texttemplate="%{text}",
                colorscale=[list(stop) for stop in figures.DIVERGING],
                zmin=0.0,
                zmid=0.5,
                zmax=1.0,
                showscale=i == len(panels),
                colorbar={"title": {"text": _AUROC}},
                hovertemplate="%{z:.3f}<extra></extra>",
            ),
            row=1,
            col=i,
        )
        own = {"tickmode": "array", "tickvals": columns, "ticktext": [escape_plotly(c) for c in s.test_contexts]}
        fig.update_xaxes(title_text="tested in" if i == 1 else None, showgrid=False, row=1, col=i, **own)
        fig.update_yaxes(
            tickmode="array",
            tickvals=rows if i == 1 else [],
            ticktext=[escape_plotly(c) for c in s.train_contexts] if i == 1 else [],
            title_text="fitted in" if i == 1 else None,
            showgrid=False,
            row=1,
            col=i,
        )
    fig.update_layout(
        title={
            "text": f"Transfer between contexts at {s.point} of layer {s.layers[layer]}",
            "subtitle": {
                "text": f"AUROC for the truth over {s.truth.shape[1]} problems; white: chance; random: mean of "
                f"{len(s.random)} directions"
            },
        },
        margin={"t": 110},
    )
    return figures.style(fig, template)
