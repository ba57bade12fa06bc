"""What jobs have computed and kept, opened again without the model."""

from datetime import datetime

import streamlit as st

from strobe.core.errors import ResultFileError
from strobe.core.result import load_result
from strobe.dashboards import store
from strobe.dashboards.components import chart, footer
from strobe.dashboards.plain import sentence

TITLE = "Results"
ICON = ":material/inventory_2:"
ORDER = 90
QUESTION = "What was computed here before?"

st.title("Results", anchor=False)
kept = store.listing()
if not kept:
    st.info("Nothing is kept yet. Run an edit on the States page: its result is kept and listed here.")
    st.stop()
st.caption(f"{len(kept)} kept in {kept[0].path.parent}. Opened from the file, without the model.")

names = [saved.path.stem for saved in kept]
labels = {s.path.stem: f"{s.kind}, {datetime.fromtimestamp(s.written):%Y-%m-%d %H:%M:%S}" for s in kept}
chosen = st.selectbox(
    "Result", names, key="result", bind="query-params", format_func=lambda n: f"{labels[n]} ({n[-6:]})"
)
path = kept[names.index(chosen)].path if chosen in names else kept[0].path
try:
    result = load_result(path)
except ResultFileError as error:
    st.error(sentence(error), icon=":material/error:")
    st.stop()

st.text(result.summary())
chart(result, result.figure, key="result-figure", alt=type(result).__name__)
footer(result)
