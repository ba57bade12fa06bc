"""Depth as time: how tokens move through the blocks, in which phases, and whether fewer shared blocks would do."""

from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from strobe.dashboards import depth_work as work
from strobe.dashboards import selection
from strobe.dashboards.components import chart, footer, job_panel, kept_result, run_button, say_if_partial
from strobe.dashboards.jobs import runner
from strobe.dashboards.plain import sentence

if TYPE_CHECKING:
    from strobe.probes.depth import BlockRecurrence, DepthDynamics

TITLE = "Depth as time"
ICON = ":material/stacked_line_chart:"
ORDER = 65
QUESTION = "If blocks were steps of one process, where would a token be heading, and which steps are alike?"

st.title("Depth as time", anchor=False)
loaded, here = selection.require()
st.markdown(
    "A token's residual stream is a path through depth. How it turns, where it is heading and which blocks do alike "
    "follow the **block-recurrent hypothesis** (arXiv:2512.19941). Its formulas are not published as code: those here, "
    "the contiguous phases and every control are ours."
)
on = st.segmented_control(
    "Tokens of", ["this text", "library files"], default="this text", required=True, key="depth_of", bind="query-params"
)


def _library() -> "DepthDynamics | None":
    """The motion of library files: a job, as a large model takes a while to read them."""
    key, name = work.library_key(loaded.source), loaded.source.name
    kept: DepthDynamics | None = kept_result(key)

    def start() -> None:
        runner().submit(key, f"Depth as time of {name}", lambda tick: work.library(key, name, tick))

    run_button("Follow library files", start, job=key, there=kept is not None, key="depth-library")
    return None if job_panel(key, kept=kept is not None) else kept


try:
    found = _library() if on == "library files" else work.dynamics(loaded, here.ids)
except ValueError as error:
    st.info(sentence(error), icon=":material/info:")
    st.stop()
if found is None:
    st.stop()
say_if_partial(found)

n = len(found.kinds)
motion, writes, phases, shared = st.tabs(["Motion", "Updates", "Phases", "Shared blocks"])
with motion:
    chart(found, found.figure, key="depth-motion", alt="convergence and angular speed through depth")
with writes:
    chart(found, found.update_figure, key="depth-updates", alt="stable rank and coherence of updates by block")
with phases:
    left, right = st.columns(2, vertical_alignment="bottom")
    with left:
        of = st.segmented_control(
            "Similar by", ["state", "update"], default="state", required=True, key="depth_by", bind="query-params"
        )
    with right:
        k = st.number_input("Phases", 1, 64, min(2, n), key="depth_k", bind="query-params")
    of = "update" if of == "update" else "state"
    k, note = selection.within(k, 1, n, "number of phases")
    if note:
        st.warning(note, icon=":material/info:")
    try:
        found.phases(k, of)
        draw = partial(found.similarity_figure, of, k)
        chart(found, draw, key="depth-similarity", alt="similarity of blocks, with phases")
        chart(found, partial(found.phase_figure, of), key="depth-phases", alt="what k phases explain")
    except ValueError as error:
        st.info(sentence(error), icon=":material/info:")

counts = work.counts(found.kinds)
settings: dict[str, Any] = {"k": counts}
with shared:
    st.markdown(
        "A copy of the model whose blocks share weights, phase by phase, is trained to retrace the model's own path "
        "on library files. If depth is recurrent, blocks shared in **contiguous phases** do better than blocks shared "
        "**at random**."
    )
    if not counts:
        st.info(
            f"Nothing can be shared here: the {n} blocks are of different kinds one after the other"
            if n > 1
            else "A model of one block has nothing to share.",
            icon=":material/info:",
        )
    else:
        steps = st.number_input("Training steps", 10, 2000, 100, 10, key="depth_steps", bind="query-params")
        settings["steps"] = min(max(int(steps), 10), 2000)
key = work.key_of(loaded.source, settings)


def _start() -> None:
    name = loaded.source.name
    runner().submit(key, f"Shared blocks of {name}", lambda tick: work.run(key, name, settings, tick))


results: list[Any] = [found]
if counts:
    with shared:
        surrogate: "BlockRecurrence | None" = kept_result(key)
        run_button(
            f"Fit {', '.join(map(str, counts))} shared blocks",
            _start,
            job=key,
            there=surrogate is not None,
            key="depth-run",
            again="Fit again",
        )
        if not job_panel(key, kept=surrogate is not None) and surrogate is not None:
            if len(surrogate.k) < len(counts):
                st.warning(f"The run was cancelled: only k = {', '.join(map(str, surrogate.k))} is here.")
            chart(surrogate, surrogate.figure, key="depth-shared", alt="loss of surrogates during training")
            chart(surrogate, surrogate.block_figure, key="depth-shared-blocks", alt="loss of surrogates by block")
            results.append(surrogate)
footer(*results)
