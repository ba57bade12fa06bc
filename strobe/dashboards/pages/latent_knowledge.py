"""Which probes find what is true where a model's answer is not, by layer and by context, beside their controls."""

from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from strobe.dashboards import latent_knowledge_work, selection
from strobe.dashboards.components import chart, footer, job_panel, kept_result, say_if_partial
from strobe.dashboards.jobs import runner
from strobe.dashboards.plain import plain, sentence

if TYPE_CHECKING:
    from strobe.probes.latent_knowledge import LatentKnowledge

TITLE = "Latent knowledge"
ICON = ":material/psychology:"
ORDER = 42
QUESTION = "Where a model's answer is false, does what it computes still say what is true?"

st.title("Latent knowledge", anchor=False)
here = selection.current()
if here.loaded is None:
    st.error(plain(here.problem or "Choose a model in the sidebar."), icon=":material/error:")
    st.stop()
loaded = here.loaded
assert loaded is not None
st.markdown(
    "Probes are fitted where the model answers truthfully and tested where it does not (Mallen et al. 2023). An "
    "**AUROC** for the truth of 1 finds what is true, 0 its opposite (what the model says), ½ nothing. CCS, CRC and "
    "VINC see no label but for their sign. The sums of the quirky models, and the control with permuted weights, are "
    "ours."
)

first, second = st.columns([2, 3], vertical_alignment="bottom")
with first:
    places = [place for place in latent_knowledge_work.POINTS if place != "state" or loaded.recurrent]
    at = st.segmented_control("Read at", places, default=places[0], required=True, key="know_at", bind="query-params")
with second:
    problems = st.text_input(
        "Problems of your own (optional)",
        placeholder="path of a JSON file",
        help='{"answers": [" yes", " no"], "train": {context: [{"prompt": ..., "true": true}, ...]}, "test": {...}}',
        key="know_problems",
        bind="query-params",
    )
problems = (problems or "").strip()
if not problems and (why := latent_knowledge_work.why_not(loaded)):
    st.info(f"{sentence(why)}.", icon=":material/info:")
    st.stop()
try:
    key = latent_knowledge_work.knowledge_key(loaded.source, latent_knowledge_work.POINTS[at or places[0]], problems)
except ValueError as error:
    st.error(sentence(error), icon=":material/error:")
    st.stop()


def _start() -> None:
    what = (key, loaded.source.name, latent_knowledge_work.POINTS[at or places[0]], problems)
    label = f"Probe what {loaded.source.name} knows"
    runner().submit(key, label, lambda tick: latent_knowledge_work.probe_knowledge(*what, tick))


result: "LatentKnowledge | None" = kept_result(key)
job = runner().get(key)
st.button(
    "Run again" if result is not None else "Probe",
    type="secondary" if result is not None else "primary",
    icon=":material/play_arrow:",
    key="know-run",
    on_click=_start,
    disabled=job is not None and not job.finished,
)
if job_panel(key) or result is None:
    st.stop()
say_if_partial(result)

said = zip(result.test_contexts, result.output_accuracy(), result.output_auroc(), strict=True)
st.caption(
    "The model itself: "
    + " · ".join(f"in {c}, {right:.0%} answered truthfully (AUROC {own:.2f})" for c, right, own in said)
)
least = result.test_contexts[result.test_index(None)]
left, right, third = st.columns(3)
with left:
    train = st.selectbox("Fitted in", result.train_contexts, key="know_train")
with right:
    test = st.selectbox("Tested in", result.test_contexts, index=result.test_contexts.index(least), key="know_test")
with third:
    layer = st.selectbox("Layer of the tables", result.layers, index=result.layer_index(None), key="know_layer")
depth, tables, numbers = st.tabs(["By layer", "Between contexts", "Table"])
with depth:
    draw = partial(result.figure, train, test)
    chart(result, draw, key="know-depth", alt="AUROC of each probe by layer, over its controls")
with tables:
    chart(result, partial(result.transfer_figure, layer), key="know-transfer", alt="fitted in against tested in")
with numbers:
    st.dataframe(result.to_frame(), hide_index=True)
footer(result)
