"""A model at a glance: its facts, its blocks, and the card that came with it."""

import re
from typing import Any

import streamlit as st

from strobe.dashboards.loading import Loaded, card, facts
from strobe.dashboards.plain import plain


def model_card(loaded: Loaded) -> None:
    """Show the facts of a model, its blocks in order, and its card."""
    st.subheader(plain(loaded.source.name if loaded.source.bundled else loaded.source.folder.name), anchor=False)
    shown = facts(loaded)
    with st.container(horizontal=True, gap="medium"):
        for name, value in shown.items():
            st.metric(name, value, border=True, width="content")
    blocks = [
        {"block": i, "mixer": kind, "carry": "recurrent" if i in loaded.recurrent else "key/value cache"}
        for i, kind in enumerate(loaded.mixers)
    ]
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.markdown("**Model card**")
        _card(loaded)
    with right:
        st.markdown("**Blocks**")
        st.dataframe(blocks, hide_index=True, width="stretch")


def safe_markdown(text: str) -> str:
    """Markdown without pictures: one in a stranger's card would ask an outside host for it.

    >>> safe_markdown("![a](http://b/c.png)")
    '[a](http://b/c.png)'
    """
    # All of them: of two, the first would be before the bracket once the second is gone.
    return re.sub(r"!+(?=\[)", "", text)


def card_markdown(found: dict[str, Any], depth: int = 0) -> str:
    """A card as a nested list: one line a fact."""
    lines = []
    for key, value in found.items():
        name, pad = str(key).replace("_", " "), "  " * depth
        if isinstance(value, dict):
            lines.append(f"{pad}- **{name}**\n{card_markdown(value, depth + 1)}")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            shown = f"{shown:.4g}" if isinstance(shown, float) else str(shown)
            lines.append(f"{pad}- **{name}**: {shown}")
    return "\n".join(lines)


def _card(loaded: Loaded) -> None:
    readme = loaded.source.folder / "README.md"
    if readme.is_file():
        st.markdown(safe_markdown(readme.read_text(encoding="utf-8", errors="replace")))
        return
    if not (found := card(loaded.source)):
        st.caption("This model came without a card. What is known about it is what its configuration says.")
        return
    if found.get("format") == "strobe-card":
        from strobe.models.zoo.card import card_markdown as ours

        # Its first heading repeats the name above.
        st.markdown(safe_markdown(re.sub(r"\A# .*\n", "", ours(found))))
    else:
        st.markdown(safe_markdown(card_markdown(found)))
