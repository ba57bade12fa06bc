"""Where a layer's carry settles while its input is held, what lies between, and depth as time."""

import streamlit as st

from strobe.dashboards import dynamics_view, held, selection
from strobe.dashboards.components import footer
from strobe.dashboards.plain import sentence

TITLE = "Dynamics"
ICON = ":material/adjust:"
ORDER = 30
QUESTION = "If the input stopped changing, where would a layer's carry settle, and how fast?"

st.title("Dynamics", anchor=False)
here = selection.current()
if here.loaded is None or not held.n_inputs(here.loaded):
    loaded, here = selection.require()
else:
    loaded = here.loaded
reads_text = not held.n_inputs(loaded)

if here.layer not in loaded.recurrent:
    st.info(
        f"Block {here.layer} of {here.model_name} is {loaded.mixers[here.layer]}, which has no recurrent carry. "
        + (f"Recurrent blocks: {', '.join(map(str, loaded.recurrent))}." if loaded.recurrent else "No block has one.")
        + " Its depth can be its time.",
        icon=":material/info:",
    )
    if reads_text:
        dynamics_view.show_depth(loaded, here)
    st.stop()

st.markdown(
    "Hold the input still and a recurrent layer is a map of its carry. A **fixed point** is a carry that one step "
    "leaves where it is; its eigenvalues say which disturbances fade, and how fast."
)
what = dynamics_view.choose_held(loaded, here)
searched = held.is_searched(loaded, here.layer)
try:
    result = (held.points if searched else held.solved)(loaded, here.layer, what)
except ValueError as error:
    st.info(sentence(error), icon=":material/info:")
    st.stop()

if searched:
    dynamics_view.show_points(result)
    footer(result)
    dynamics_view.show_between(loaded, here.layer, what)
    dynamics_view.show_training(loaded)
else:
    try:
        stack = held.stack(loaded, what)
    except ValueError as error:
        stack = str(error)
    dynamics_view.show_solved(result, stack)
    footer(result)
if reads_text:
    dynamics_view.show_depth(loaded, here)
