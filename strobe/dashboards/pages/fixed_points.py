"""Where a layer's carry settles while its input is held, and what it could remember for ever."""

from functools import partial

import streamlit as st

from strobe.dashboards import held, selection
from strobe.dashboards.components import chart, footer

TITLE = "Fixed points"
ICON = ":material/adjust:"
ORDER = 30
QUESTION = "If the input stopped changing, where would a layer's carry settle, and how fast?"

st.title("Fixed points", anchor=False)
here = selection.current()
if here.loaded is None or not held.n_inputs(here.loaded):
    loaded, here = selection.require()
else:
    loaded = here.loaded
if here.layer not in loaded.recurrent:
    st.info(
        f"Block {here.layer} of {here.model_name} is {loaded.mixers[here.layer]}, which has no recurrent carry. "
        + (f"Recurrent blocks: {', '.join(map(str, loaded.recurrent))}." if loaded.recurrent else "No block has one."),
        icon=":material/info:",
    )
    st.stop()

st.markdown(
    "Hold the input still and a recurrent layer is a map of its carry. A **fixed point** is a carry that one step "
    "leaves where it is; its eigenvalues say which disturbances fade, and how fast."
)
if count := held.n_inputs(loaded):
    columns = st.columns(min(count, 6))
    what: held.Held = tuple(
        float(columns[i % len(columns)].slider(f"Held input {i}", -1.0, 1.0, 0.0, 0.1, key=f"held-{i}"))
        for i in range(count)
    )
else:
    what = here.ids[here.position]
    st.caption("The token at the selected position is held; choose another position in the sidebar.")

try:
    result = (held.points if held.is_searched(loaded, here.layer) else held.solved)(loaded, here.layer, what)
except ValueError as error:
    st.info(str(error), icon=":material/info:")
    st.stop()

if held.is_searched(loaded, here.layer):
    st.caption(f"{len(result.points)} fixed points: " + ", ".join(f"{n} {k}" for k, n in result.kind_counts().items()))
    portrait, plane, complete, table = st.tabs(["Portrait", "Eigenvalues", "Were all found?", "Table"])
    with portrait:
        space = st.toggle("Three dimensions", key="space")
        draw = partial(result.figure, dimensions=3 if space else 2)
        chart(result, draw, key="fixed-portrait", alt="trajectories and fixed points along their main axes")
    with plane:
        chart(result, result.eigenvalue_figure, key="fixed-plane", alt="eigenvalues and the unit circle")
    with complete:
        st.caption(f"Completeness: {result.verdict}.")
        chart(result, result.completeness_figure, key="fixed-complete", alt="points found against initial carries")
    with table:
        st.dataframe(result.to_frame(), hide_index=True)
else:
    st.caption("This layer is linear in its carry under a held token, so its one fixed point is solved, not searched.")
    times, plane = st.tabs(["Timescales", "Eigenvalues"])
    with times:
        chart(result, result.figure, key="held-times", alt="longest timescale of each head")
    with plane:
        chart(result, result.eigenvalue_figure, key="held-plane", alt="eigenvalues and the unit circle")
footer(result)
