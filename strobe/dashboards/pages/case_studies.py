"""Experiments of the literature done again here: what the paper says, what came out, and a way to do it once more."""

import streamlit as st

from strobe.core.errors import ResultFileError
from strobe.dashboards import case_studies_work
from strobe.dashboards.components import chart, footer, job_panel
from strobe.dashboards.jobs import runner

TITLE = "Case studies"
ICON = ":material/science:"
ORDER = 35
QUESTION = "Do the published effects appear when the experiment is small enough to train here?"

st.title("Case studies", anchor=False)
st.markdown(
    "Each trains from nothing in a minute or two on one thread. What is shown first is the run that is bundled; it "
    "says "
    "what the paper claims, what was measured, and where the effect did **not** appear at this size. They do not "
    "depend on "
    "the model in the sidebar."
)
studies = case_studies_work.studies()
name = st.segmented_control(
    "Study", list(studies), default=next(iter(studies)), required=True, key="study", bind="query-params"
)
name = name if name in studies else next(iter(studies))
st.caption(studies[name].capitalize() + ".")

key = case_studies_work.study_key(name)


def _start() -> None:
    runner().submit(key, f"Case study {name}", lambda tick: case_studies_work.do_again(name, tick))


again = None
try:
    again = case_studies_work.done_here(name)
except ResultFileError as error:
    st.warning(f"A kept result could not be opened: {error}")
job = runner().get(key)
with st.container(horizontal=True, vertical_alignment="bottom"):
    which = "bundled run"
    if again is not None:
        which = st.segmented_control(
            "Shown", ["bundled run", "run done here"], default="run done here", required=True, key="study_run"
        )
    st.button(
        "Do it again here",
        icon=":material/play_arrow:",
        key="study-run",
        on_click=_start,
        disabled=job is not None and not job.finished,
    )
job_panel(key)
result = again if again is not None and which == "run done here" else case_studies_work.bundled(name)

chart(result, result.figure, key=f"study-{name}", alt=result.title)
st.markdown(result.card())
footer(result)
