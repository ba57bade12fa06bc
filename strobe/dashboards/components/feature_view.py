"""One feature on a page: how it fires, the passages where it does, what it does in the page's text."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from strobe.core.tokens import token_html
from strobe.dashboards import selection
from strobe.dashboards.components.charts import chart
from strobe.dashboards.components.halves import halves
from strobe.dashboards.components.token_strip import token_strip
from strobe.dashboards.plain import code

if TYPE_CHECKING:
    from strobe.probes.sae import FeatureAtlas, FeatureText

# Features offered for a searched token, and rows of the table.
_OFFERED = 12


def search_box(atlas: "FeatureAtlas") -> None:
    """Search by token: the features that fire most on it, each a click away."""
    word = st.text_input("Search by token", key="feature_token", bind="query-params", placeholder="self, return, (")
    if not word:
        return
    found = atlas.search(word)[:_OFFERED]
    if not found:
        st.caption(f"No token {code(word, 20)} was read, or nothing fires on it.")
        return
    st.caption("Features by their mean activation on it:")
    with st.container(horizontal=True):
        for feature, token, mean in found:
            st.button(
                f"{feature} · {mean:.2f}",
                key=f"found-{feature}-{token}",
                on_click=_choose,
                args=(feature,),
                help=f"on {code(token, 20)}",
            )


def offer(features: Sequence[int], said: str, key: str) -> None:
    """Buttons that choose one of `features`."""
    st.caption(said)
    with st.container(horizontal=True):
        for feature in features:
            st.button(str(feature), key=f"{key}-{feature}", on_click=_choose, args=(int(feature),))


def activity(atlas: "FeatureAtlas", feature: int) -> None:
    """Numbers, histogram and next tokens of `feature`."""
    density, control = float(atlas.density[feature]), float(atlas.control_density[feature])
    for column, (name, value) in zip(
        st.columns(4),
        {
            "Active on": f"{density:.3%} of tokens",
            "In random order (control)": f"{control:.3%}",
            "Largest activation": f"{float(atlas.maximum[feature]):.3g}",
            "Mean where active": f"{float(atlas.mean_active[feature]):.3g}",
        }.items(),
        strict=True,
    ):
        column.metric(name, value)
    if not density:
        st.info(f"Feature {feature} never fires on this text: it is dead, or about something else.")
        return
    left, right = halves("feature")
    with left:
        draw, alt = partial(atlas.figure, feature), f"activations of feature {feature}"
        chart(atlas, draw, key="feature-histogram", alt=alt, narrow=True)
    with right:
        if atlas.logit_tokens.shape[2]:
            draw = partial(atlas.logit_figure, feature)
            alt = f"next tokens that feature {feature} raises and lowers"
            chart(atlas, draw, key="feature-logits", alt=alt, narrow=True)
        else:
            st.caption("A feature of a state, or of another width than the residual stream, has no direct next tokens.")


def passages(atlas: "FeatureAtlas", feature: int) -> None:
    """Passages where `feature` fires, the strongest first, then by quarters of its maximum."""
    found = atlas.passages(feature)
    top = float(atlas.maximum[feature]) or 1.0
    for band in dict.fromkeys(p.band for p in found):
        here = [p for p in found if p.band == band]
        st.markdown(f"**{band}** · {len(here)} passages")
        for p in here:
            # The legend would be repeated under every line; it stands once, below.
            html = token_html(p.tokens, p.values.tolist(), name=f"feature {feature}", vmax=top)
            st.html(_without_line_ends(html))
    if found:
        st.caption(f"Vermilion: activation, in full colour at the feature's maximum, {top:.3g}. Held-out files.")


def in_text(text: "FeatureText", feature: int, position: int) -> None:
    """Where `feature` fires in the page's text, and which features fire most in it."""
    token_strip(
        text.tokens,
        text.of(feature).tolist(),
        label=f"feature {feature}",
        unit="",
        chosen=position,
        key="feature-strip",
        on_pick=selection.pick_position,
    )
    others = [f for f in text.features if f != feature]
    offer(others[:_OFFERED], "Other features, by their largest activation in this text:", "fires")
    chart(text, text.figure, key="feature-text", alt="features that fire in the text, by token")


def _choose(feature: int) -> None:
    st.session_state["feature"] = int(feature)


def _without_line_ends(html: str) -> str:
    """A passage on one line, its legend dropped: the sign for a line end stays."""
    return html.replace("<br>", "").split('<div style="font-size:12px', 1)[0] + "</div>"
