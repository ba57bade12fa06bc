"""Where the numbers on a page come from, and what they are compared with."""

import streamlit as st

from strobe.core.result import Result
from strobe.dashboards.plain import plain


def footer(*results: Result) -> None:
    """The control in words, and each result's summary and provenance to unfold."""
    st.divider()
    for result in results:
        st.caption(f"**Control:** {plain(result.provenance.control or 'none')}")
        with st.expander(f"Where this comes from · {type(result).__name__}", icon=":material/history:"):
            # Not st.code: the browser would load a highlighter of 1.5 MB for every page.
            st.text(f"{result.summary()}\n\n{result.provenance.summary()}")
