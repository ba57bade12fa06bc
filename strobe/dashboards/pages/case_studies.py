"""Experiments of the literature done again here: what the paper says, what came out, and a way to do it once more."""

import streamlit as st

from strobe.dashboards import case_studies_work
from strobe.dashboards.components import chart, footer, job_panel, kept_result, run_button
from strobe.dashboards.jobs import runner

TITLE = "Case studies"
ICON = ":material/science:"
ORDER = 35
QUESTION = "Do the published effects appear when the experiment is small enough to train here?"

st.title("Case studies", anchor=False)
st.markdown(
    "Each trains from nothing in minutes on one thread; its card says how many. What is shown first is the run that is "
    "bundled; it says what the paper claims, what was measured, and where the effect did **not** appear at this size. "
    "One that is cancelled keeps its trainings and goes on from there. They do not depend on the model in the sidebar."
)
studies = case_studies_work.studies()
name = st.segmented_control(
    "Study", list(studies), default=next(iter(studies)), required=True, key="study", bind="query-params"
)
name = name if name in studies else next(iter(studies))
st.caption(studies[name][:1].upper() + studies[name][1:] + ".")

key = case_studies_work.study_key(name)


def _start() -> None:
    runner().submit(key, f"Case study {name}", lambda tick: case_studies_work.do_again(name, tick))


again, stopped = kept_result(key), kept_result(case_studies_work.stopped_key(name))
with st.container(horizontal=True, vertical_alignment="bottom"):
    which = "bundled run"
    others = {"run done here": again, "what was stopped": stopped}
    there = [label for label, result in others.items() if result is not None]
    if there:
        # A key for each choice there can be: what was chosen from others would be no choice here.
        which = st.segmented_control(
            "Shown",
            ["bundled run", *there],
            default=there[-1],
            required=True,
            key=" ".join(["study_run", name, *there]),
        )
    run_button("Do it again here", _start, job=key, there=stopped is not None, key="study-run", again="Go on with it")
job_panel(key, kept=stopped is not None)
result = case_studies_work.bundled(name) if which not in there else others[which]

title = getattr(result, "title", "Training loss of a study that was stopped")
chart(result, result.figure, key=f"study-{name}", alt=title)
st.markdown(result.card())
footer(result)
