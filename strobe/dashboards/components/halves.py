"""Two things side by side where there is room for both, and below each other where there is not."""

from typing import Any

import streamlit as st

# Streamlit's columns share any width above that of a telephone: two figures beside the sidebar of a small window would
# have 200 pixels each.
_STYLE = '<style>[class*="st-key-halves-"] [data-testid="stColumn"] { min-width: min(100%, 25rem) }</style>'


def halves(key: str) -> tuple[Any, Any]:
    """The left and the right half of the page, each to be used as a context."""
    st.html(_STYLE)
    with st.container(key=f"halves-{key}"):
        left, right = st.columns(2, gap="medium")
    return left, right
