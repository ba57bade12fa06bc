"""What a person came for is seen before what takes the browser long to load."""

import time

import streamlit as st
from streamlit.components.v2 import component

# Seconds. The browser needs a moment in which nothing else arrives: on a quiet two-core machine, before components were
# fetched ahead, the grid was seen after 1.3 s with this, after 2.2 s with 0.3, and after 2.4 s without.
_PAUSE = 0.9
_nothing = component("strobe_nothing", html="<span hidden></span>")


def fetch_components() -> None:
    """Have the browser get ready what draws our own components while the script still computes what they show.

    Their code is there by then (`fetched_ahead`), but it is run, and a grey place drawn meanwhile, when the first
    component comes; so one that shows nothing is sent ahead. Without it the grid of the lens page is seen later.
    """
    _nothing(key="fetch-components")


def first_paint() -> None:
    """Let a new tab draw what it has been sent, once: the next Plotly figure loads 4.7 MB of code, and nothing is drawn
    while a browser reads that."""
    if not st.session_state.get("painted", False):
        st.session_state["painted"] = True
        time.sleep(_PAUSE)
