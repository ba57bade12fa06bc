"""What the model would predict if it stopped after each layer, at every token of the text."""

from functools import partial

import streamlit as st

from strobe.dashboards import asks, lens_view, selection, work
from strobe.dashboards.components import chart, exports, first_paint, footer, halves, job_panel, lens_grid
from strobe.dashboards.components.iterative_view import iterative_view
from strobe.dashboards.components.lens_training import lens_training
from strobe.dashboards.plain import plain

TITLE = "Lens"
ICON = ":material/layers:"
ORDER = 10
QUESTION = "At which layer does the model know what comes next, at every token of the text?"

st.title("Lens", anchor=False)
loaded, here = selection.require()
files, unusable = asks.usable_lenses(loaded)
for problem in unusable:
    st.warning(plain(problem), icon=":material/warning:")
st.markdown(
    "Each cell is what the model would predict if it stopped after layer *l* (0 is the embedding). The **tuned** lens "
    "first applies a fitted affine map to the layer (Belrose et al. 2023); the **logit** lens applies none "
    "(nostalgebraist 2020). **Click a cell** to select its token and layer."
)

kinds = ["tuned", "logit"] if files else ["logit"]
left, middle, right = st.columns([2, 3, 2], vertical_alignment="bottom")
with left:
    kind = (
        st.segmented_control("Lens", kinds, default=kinds[0], required=True, key="lens", bind="query-params")
        or kinds[0]
    )
with middle:
    statistic = st.selectbox("Colour", list(lens_view.STATISTICS), key="colour", bind="query-params")
with right:
    which = files[0] if files else None
    if len(files) > 1:
        labels = [f.label for f in files]
        which = files[
            labels.index(st.selectbox("Tuned lens", labels, key="lens_from", bind="query-params") or labels[0])
        ]

trajectory = asks.lens_trajectory(loaded, here.ids, which)
lens, name = (
    kind if kind in trajectory.lenses else trajectory.lenses[0],
    lens_view.STATISTICS[statistic or lens_view.DEFAULT],
)
view = lens_view.view(trajectory.n_layers, len(here.ids), here.position)
if view.shortened:
    low, high = 0, len(here.ids) - 1
    asked = st.slider(
        "From token", low, high, view.first, key="from", bind="query-params", disabled=high < view.n_tokens
    )
    view = lens_view.view(
        trajectory.n_layers, len(here.ids), here.position, selection.within(asked, low, high, "from")[0]
    )
if view.message:
    st.caption(view.message)

draw = partial(trajectory.figure, name, lens, first=view.first, n_tokens=view.n_tokens, max_rows=view.max_rows)
alt = f"{lens} lens, {statistic}: layers by tokens, the likeliest token of each cell"
if view.canvas:
    lens_grid(
        trajectory, name, lens, first=view.first, n_tokens=view.n_tokens, rows=view.rows, chosen=here.position,
        key="lens-grid", on_pick=selection.pick_lens_cell,
    )  # fmt: skip
    exports(trajectory, draw, key="lens")
    first_paint()
else:
    chart(trajectory, draw, key="lens-figure", alt=alt, on_pick=selection.pick_lens_cell)

left, right = halves("lens")
with left:
    at = partial(trajectory.token_figure, here.position, lens)
    alt = f"most probable next tokens after token {here.position}, by layer"
    chart(trajectory, at, key="lens-token", alt=alt, narrow=True)
with right:
    chart(trajectory, trajectory.curve_figure, key="lens-curve", alt="cross-entropy of the text by layer", narrow=True)

st.subheader("Tuned lens of this model", anchor=False)
job = lens_training(loaded)
if not job_panel(job, kept=work.stopped(work.lens_home(loaded)).is_file()) and len(files) > 1:
    st.caption("Which of them is looked through is chosen above: Tuned lens.")
if kind == "tuned" and which is not None:
    st.caption(f"In use: the tuned lens {which.label}.")
iterative_view(loaded)
footer(trajectory)
