"""What a person came for is seen before what takes the browser long to load."""

import time

import streamlit as st

# Seconds. The browser needs a moment in which nothing else arrives; on a quiet two-core machine the grid was seen after
# 1.3 s with this, after 2.2 s with 0.3, and after 2.4 s without.
_PAUSE = 0.9


def first_paint() -> None:
    """Let a new tab draw what it has been sent, once: the next Plotly figure loads 4.7 MB of code, and nothing is drawn
    while a browser reads that."""
    if not st.session_state.get("painted", False):
        st.session_state["painted"] = True
        time.sleep(_PAUSE)
