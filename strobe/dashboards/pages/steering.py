"""The text of the page continued three ways: as it is, steered by a contrast vector, and by a random direction; and the
vectors of every layer swept."""

from typing import TYPE_CHECKING

import streamlit as st

from strobe.dashboards import selection, steering_work
from strobe.dashboards.components import chart, footer, job_panel, kept_result, run_button, say_if_partial
from strobe.dashboards.components.state_edit import continuation_html
from strobe.dashboards.components.steering_sweep import show_sweep
from strobe.dashboards.jobs import runner

if TYPE_CHECKING:
    from strobe.probes.steering.play import SteeredText

TITLE = "Steering"
ICON = ":material/explore:"
ORDER = 40
QUESTION = "What does the model write when a direction is added to what it computes, or to what it carries?"

_SETS = {
    "two spaces, not four": "indentation",
    "snake_case, not camelCase": "naming",
    "code, not comments": "comments",
    "tests, not library": "tests",
}

st.title("Steering", anchor=False)
loaded, here = selection.require()
st.markdown(
    "A **contrast vector** is the mean difference between texts that show something and texts that do not (Rimsky et "
    "al. 2023), here from held-out files of Python's library. It is added at the selected layer, to the **residual "
    "stream** or, as Paulo et al. 2024 tried, to the **state** that the layer carries on. The sets, and the control "
    "beside the text, are ours. A negative multiplier steers the other way."
)

which, towards = st.columns([2, 3], vertical_alignment="bottom")
with which:
    view = st.segmented_control(
        "Look at", ["one text", "a sweep"], default="one text", required=True, key="steer_view", bind="query-params"
    )
with towards:
    contrast = st.selectbox("Towards", list(_SETS), key="steer_to", bind="query-params") or next(iter(_SETS))
if view == "a sweep":
    show_sweep(loaded, contrast, _SETS[contrast])
    st.stop()

second, third, fourth, fifth = st.columns([2.6, 1.6, 1.4, 1.6], vertical_alignment="bottom")
with second:
    places = list(steering_work.POINTS) if here.layer in loaded.recurrent else ["residual stream"]
    at = st.segmented_control("At", places, default=places[0], required=True, key="steer_at", bind="query-params")
with third:
    multiplier = st.number_input("Multiplier", -50.0, 50.0, 2.0, 0.5, key="steer_by", bind="query-params")
with fourth:
    new = st.number_input("New tokens", 1, 200, 32, key="steer_new", bind="query-params")
with fifth:
    temperature = st.number_input("Temperature (0: greedy)", 0.0, 5.0, 0.7, 0.1, key="steer_heat", bind="query-params")

settings = {
    "contrast": _SETS[contrast],
    "at": at or places[0],
    "multiplier": float(multiplier),
    "new": int(new),
    "temperature": float(temperature),
}
key = steering_work.steering_key(loaded.source, here.subject, here.layer, settings)


def _start() -> None:
    label = f"Steer block {here.layer} towards {contrast}"
    what = (key, loaded.source.name, here.subject, here.layer, settings)
    runner().submit(key, label, lambda tick: steering_work.steer_text(*what, tick))


result: "SteeredText | None" = kept_result(key)
run_button("Steer", _start, job=key, there=result is not None, key="steer-run")
names = ("Unsteered", "Steered", "Random direction of the same norm")


@st.fragment(run_every=0.5)
def _written() -> None:
    texts = steering_work.written(key)
    for column, name, said in zip(st.columns(3) if texts else (), names, texts, strict=False):
        with column, st.container(border=True, height="stretch"):
            st.caption(name)
            st.html(continuation_html(said, texts[0]))


if job_panel(key):
    _written()
    st.stop()
if result is None:
    st.stop()
say_if_partial(result)

st.markdown("**Continuations**, drawn with the same noise; what differs from the unsteered run is marked.")
for column, name, words, surprise in zip(st.columns(3), names, result.continuations, result.surprise, strict=False):
    with column, st.container(border=True, height="stretch"):
        st.caption(f"{name} · {float(surprise[: len(words)].mean()):.2f} nats per token to the unsteered model")
        st.html(continuation_html(words, result.continuations[0]))
chart(result, result.figure, key="steering", alt="surprise of the unsteered model at each continuation")
footer(result)
