"""What is here: the model, what is known about it, and which question each page answers."""

import streamlit as st

from strobe.dashboards import loading, selection
from strobe.dashboards.app import pages
from strobe.dashboards.components import model_card
from strobe.dashboards.plain import plain

TITLE = "Start"
ICON = ":material/home:"
ORDER = 0
QUESTION = "Which model is this, and where can I look?"

_PER_ROW = 4

here = selection.current()

st.title("strobe", anchor=False)
st.markdown(
    "See, and change, what a sequence model carries from one token to the next. Choose a model and a text on the left; "
    "every page looks at the same selection, and the address of a page is a link to what you see."
)

if here.loaded is None:
    st.error(plain(here.problem), icon=":material/error:")
    if names := loading.bundled():
        st.markdown("Bundled models: " + ", ".join(f"`{name}`" for name in names))
    st.stop()
assert here.loaded is not None

others = [page for page in pages() if page.title != TITLE]
for first in range(0, len(others), _PER_ROW):
    for column, page in zip(st.columns(_PER_ROW), others[first : first + _PER_ROW], strict=False):
        with column, st.container(border=True, height="stretch"):
            st.page_link(page.path, label=f"**{page.title}**", icon=page.icon)
            st.markdown(page.question)

model_card(here.loaded)
