"""Figures of a family of models: its laws beside the published fits, and behaviour by segment."""

from typing import TYPE_CHECKING, Literal

import numpy as np

from strobe.core import figures
from strobe.probes.memory.laws import PAPER, MemoryLaw
from strobe.probes.memory.laws import law as law_of

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.memory.family_result import MemoryFamily

_WORDS = {
    "forget": "T_forget: forgets, trained at this length or more",
    "recall": "T_recall: recalls prompts this long",
}
# Sizes that the paper's models span, in millions of numbers; its fit for T_forget is below 0 for smaller ones.
_PUBLISHED = (1.0, 12.58)


def law(family: "MemoryFamily", what: Literal["forget", "recall"], template: str) -> "plotly.graph_objects.Figure":
    """Left, each model of the family and the law fitted to them; right, the published fit on its own scale."""
    from plotly.subplots import make_subplots

    fig = make_subplots(
        rows=1, cols=2, horizontal_spacing=0.12,
        subplot_titles=("measured here", "published (Chen et al. 2024)"),
    )  # fmt: skip
    lengths, palette = family.lengths(what), figures.colors(template)
    fitted = _fitted(family, what)
    for s, seed in enumerate(family.seeds):
        look = {"color": palette[s % len(palette)], "symbol": figures.SYMBOLS[s % len(figures.SYMBOLS)], "size": 10}
        fig.add_scatter(x=family.sizes, y=lengths[:, s], mode="markers", name=f"seed {seed}", marker=look,
                        row=1, col=1)  # fmt: skip
    # Coefficients and intervals are in the summary: they do not fit on one line.
    note = family.said(what).split(":")[0]
    if fitted is not None:
        note = f"{note}; R² {fitted.r2:.2f}, {100 * fitted.chance:.0f} % of shuffled orders explained as well"
        at = np.linspace(family.sizes.min(), family.sizes.max(), 100)
        fig.add_scatter(x=at, y=fitted.predict(at), mode="lines", name="fit to them", row=1, col=1,
                        line={"color": palette[1], "dash": "dash"})  # fmt: skip
        fig.add_scatter(x=at, y=np.full(len(at), np.mean(fitted.lengths)), mode="lines", row=1, col=1,
                        name="their mean: no law (control)",
                        line={"color": figures.CONTROL_COLOR, "dash": "dot"})  # fmt: skip
    kind = "linear" if what == "forget" else "exponential"
    paper = np.linspace(*_PUBLISHED, 100)
    fig.add_scatter(x=paper, y=law_of(kind)(paper, *PAPER[kind]), mode="lines", name="published fit (the paper's)",
                    line={"color": figures.CONTROL_COLOR}, row=1, col=2)  # fmt: skip
    fig.update_xaxes(title_text="size of the state (numbers)", row=1, col=1)
    fig.update_xaxes(title_text="size of the state (millions)", row=1, col=2)
    fig.update_yaxes(title_text="length (tokens)", rangemode="tozero", row=1, col=1)
    fig.update_yaxes(title_text="length (thousands of tokens)", rangemode="tozero", row=1, col=2)
    fig.update_layout(title={"text": _WORDS[what], "subtitle": {"text": note}}, margin={"t": 110}, height=440,
                      legend={"orientation": "h", "y": -0.2, "yanchor": "top"})  # fmt: skip
    return figures.style(fig, template)


def _fitted(family: "MemoryFamily", what: Literal["forget", "recall"]) -> MemoryLaw | None:
    try:
        return family.law(what)
    except ValueError:
        return None


def behaviour(family: "MemoryFamily", template: str) -> "plotly.graph_objects.Figure":
    """Accuracy by segment, mean over seeds: a panel a size, a line a training length, the untrained model in grey."""
    from plotly.subplots import make_subplots

    n, palette = len(family.sizes), figures.colors(template)
    fig = make_subplots(
        rows=1, cols=n, shared_yaxes=True, horizontal_spacing=0.02,
        subplot_titles=[f"state of {size}" for size in family.sizes],
    )  # fmt: skip
    # Drawn at the end of each octave of segments: 1, 2, 4, 8, ...
    at = family.segment * 2.0 ** np.arange(family.octaves.shape[-1])
    mean = family.octaves.mean(2)
    for i in range(n):
        first = i == 0
        for j, window in enumerate(family.windows):
            look = {"color": palette[j % len(palette)], "dash": figures.DASHES[j % len(figures.DASHES)]}
            fig.add_scatter(x=at, y=mean[i, j], mode="lines", name=f"trained on {window}", legendgroup=str(window),
                            showlegend=first, line=look, row=1, col=i + 1)  # fmt: skip
        fig.add_scatter(x=at, y=family.untrained_octaves[i], mode="lines", name="untrained (control)",
                        legendgroup="untrained", showlegend=first, row=1, col=i + 1,
                        line={"color": figures.CONTROL_COLOR, "dash": "dot"})  # fmt: skip
    fig.update_xaxes(type="log", title_text="tokens", tickvals=[16, 256, 4096])
    fig.update_yaxes(range=[0, 1.02])
    fig.update_yaxes(title_text="share of scored tokens right", row=1, col=1)
    note = f"mean over seeds {', '.join(map(str, family.seeds))}; every answer lies within the query's own segment"
    fig.update_layout(
        title={"text": "Accuracy by position, by size of the state", "subtitle": {"text": note}}, margin={"t": 110},
        height=400, legend={"orientation": "h", "y": -0.25, "yanchor": "top"},
    )  # fmt: skip
    return figures.style(fig, template)
