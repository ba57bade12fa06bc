"""Figures of a feature: its activations, the tokens it raises and lowers, and the densities of all features."""

from typing import TYPE_CHECKING

import numpy as np

from strobe.core import figures
from strobe.core.tokens import escape_plotly, show

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.sae.atlas import FeatureAtlas


def histogram(atlas: "FeatureAtlas", feature: int, template: str) -> "plotly.graph_objects.Figure":
    """Counts of the activations of `feature`, on a logarithmic axis; the tokens where it is 0 are stated, not drawn."""
    import plotly.graph_objects as go

    counts = atlas.histogram[feature]
    width = atlas.maximum[feature] / len(counts)
    fig = go.Figure()
    fig.add_bar(
        x=(np.arange(len(counts)) + 0.5) * width,
        y=np.where(counts > 0, counts, np.nan),
        width=width,
        marker={"color": figures.colors(template)[1]},
        hovertemplate="around %{x:.3g}: %{y} tokens<extra></extra>",
        name="activation",
    )
    fig.update_xaxes(title_text="activation (units of the hook point)")
    fig.update_yaxes(title_text="tokens", type="log")
    text = (
        f"active on {atlas.density[feature]:.3%} of {atlas.n_tokens} tokens, on {atlas.control_density[feature]:.3%} "
        f"with the tokens in random order (control){'; ' if atlas.partial else ''}{atlas.partial}"
    )
    fig.update_layout(
        title={"text": f"Feature {feature}: activations above 0", "subtitle": {"text": text}},
        margin={"t": 84},
        bargap=0,
    )
    return figures.style(fig, template)


def logits(atlas: "FeatureAtlas", feature: int, template: str) -> "plotly.graph_objects.Figure":
    """Bars of the tokens raised (vermilion) and lowered (blue) most by one unit of `feature`."""
    import plotly.graph_objects as go

    raised, lowered = atlas.logits(feature)
    if not raised:
        raise ValueError(
            f"the logits of feature {feature} were asked for; it is of a state, {atlas.hook_name!r}, which acts on "
            "later tokens only; stimulate it instead"
        )
    rows = [*raised, *reversed(lowered)]
    at = list(range(len(rows)))
    palette = figures.colors(template)
    fig = go.Figure()
    fig.add_bar(
        x=[value for _, value in rows],
        y=at,
        orientation="h",
        marker={"color": [palette[1] if value > 0 else palette[0] for _, value in rows]},
        hovertemplate="%{x:.3g} logits<extra></extra>",
        name="effect",
    )
    ticks = [escape_plotly(show(word, 14)) for word, _ in rows]
    fig.update_yaxes(title_text="next token", tickmode="array", tickvals=at, ticktext=ticks, autorange="reversed")
    fig.update_xaxes(title_text="logits for one unit of the feature, less their mean", zeroline=True)
    text = "its direct effect, through the final norm at the mean last residual; what later layers do is not in it"
    fig.update_layout(
        title={"text": f"Feature {feature}: next tokens", "subtitle": {"text": text}},
        margin={"t": 84},
        height=max(360, 24 * len(rows) + 150),
    )
    return figures.style(fig, template)


def densities(atlas: "FeatureAtlas", template: str) -> "plotly.graph_objects.Figure":
    """How many features fire how often, beside the same text with its tokens in random order."""
    import plotly.graph_objects as go

    palette, fig = figures.colors(template), go.Figure()
    low = -np.log10(atlas.n_tokens)
    edges = np.linspace(low, 0, 31)
    sides = (
        ("text", atlas.density, {"color": palette[0]}),
        ("tokens in random order (control)", atlas.control_density, {"color": figures.CONTROL_COLOR}),
    )
    for name, values, line in sides:
        fired = values[values > 0]
        counts, _ = np.histogram(np.log10(fired), edges)
        fig.add_scatter(
            x=(edges[1:] + edges[:-1]) / 2, y=counts, mode="lines", name=name, line={**line, "shape": "hvh"}
        )
    undrawn = f"{int((atlas.density == 0).sum())} features never fire and are not drawn"
    fig.update_xaxes(title_text="log10 of the fraction of tokens on which a feature is active")
    fig.update_yaxes(title_text="features", rangemode="tozero")
    fig.update_layout(
        title={
            "text": f"Density of {atlas.n_features} features of {atlas.hook_name}",
            "subtitle": {"text": "; ".join(filter(None, (f"{atlas.n_tokens} tokens", atlas.partial, undrawn)))},
        },
        margin={"t": 84},
    )
    return figures.style(fig, template)
