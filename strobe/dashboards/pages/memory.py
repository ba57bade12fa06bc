"""What a model's carry does far beyond its training length, how much it holds, and what changing it repairs."""

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import streamlit as st

from strobe.dashboards import loading, memory_work, selection
from strobe.dashboards.components import chart, footer, job_panel, kept_result, say_if_partial
from strobe.dashboards.jobs import runner
from strobe.dashboards.plain import plain

if TYPE_CHECKING:
    from strobe.core.result import Result

TITLE = "Memory"
ICON = ":material/hourglass_empty:"
ORDER = 32
QUESTION = "What does the carry do on inputs far longer than training: does it forget, overflow, or fall apart?"

_CURVES = ("norm", "retention", "variance", "mean", "largest", "rank", "saturation")


def _table(table: dict[str, Any]) -> None:
    st.markdown(f"**{plain(str(table['title']))}**")
    columns = [column or "model" for column in table["columns"]]
    st.dataframe([dict(zip(columns, map(str, row), strict=True)) for row in table["rows"]], hide_index=True)
    st.caption(plain(str(table["note"])))


st.title("Memory", anchor=False)
here = selection.current()
if here.loaded is None:
    loaded, here = selection.require()
else:
    loaded = here.loaded
st.markdown(
    "A model is run on inputs longer than any in its training, at flat memory. A carry that grows is not yet a "
    "collapse: that word takes **behaviour** that falls with position while the recall distance stays the same, and "
    "an **intervention** on the carry that brings it back (the analysis called Mitigations)."
)
task = getattr(getattr(loaded.model, "config", None), "task", None)
tables = loading.card(loaded.source).get("tables", ())
if task == "segmented_recall" and tables:
    with st.expander("Collapse, its cause, the causal test, the cure: measured as this was made", expanded=True):
        st.markdown(
            "A **synthetic overwrite task**, no language model: every segment of 64 tokens has a map of its own. "
            "`recall-t64` was trained on one segment and never had to forget; `recall-t128`, trained on two, had to. "
            "What this does not show: the paper's law in the size of the state did not come out here (a larger state "
            "collapsed less), so the claim is about training length alone."
        )
        for table in tables:
            _table(table)
    with st.expander("Does a larger state have to be trained longer before it forgets? A family trained for this"):
        family = memory_work.family()
        st.markdown(
            "Chen et al. 2024 find that the training length from which a model learns to forget grows with the size of "
            "its state, and that the length it recalls from grows faster still. The same asked of small models, each "
            "trained here on segments of sixteen tokens: their published fit is drawn beside ours, and is not ours."
        )
        views = {"T_forget": "forget", "T_recall": "recall", "Accuracy by position": "behaviour"}
        view = views[st.segmented_control("Draw", list(views), default="T_forget", required=True, key="mem_family",
                                          bind="query-params") or "T_forget"]  # fmt: skip
        if view != "behaviour":
            said = family.said(view)
            st.info(f"{said[:1].upper()}{said[1:]}.")
        chart(family, partial(family.figure, view), key=f"memory-family-{view}", alt=f"{view}, by size of the state")
        for table in family.tables():
            _table(table)
elif task is None:
    st.caption("No language model that was trained on a CPU for this project collapsed. Expect none here to.")

analyses = {k: v for k, v in memory_work.ANALYSES.items() if loaded.recurrent or k not in memory_work.RECURRENT_ONLY}
if not loaded.recurrent:
    st.info(
        "No block of this model has a recurrent carry, so there is no carry to diagnose; what asks for predictions "
        "only applies. Depth can be its time: see the pages Depth as time and Dynamics.",
        icon=":material/info:",
    )
words = st.segmented_control(
    "Analysis", list(analyses.values()), default=next(iter(analyses.values())), required=True, key="mem_what",
    bind="query-params",
)  # fmt: skip
analysis = next((k for k, v in analyses.items() if v == words), next(iter(analyses)))
trained = int(getattr(getattr(loaded.model, "config", None), "n_ctx", None) or 512)
first, second, third, fourth = st.columns(4, vertical_alignment="bottom")
with first:
    time = st.number_input("Tokens", 16, 1_000_000, 4096, key="mem_time", bind="query-params")
with second:
    rows = st.number_input("Rows (averaged over)", 2, 256, 4, key="mem_rows", bind="query-params")
with third:
    length = st.number_input("Training length", 1, 1_000_000, trained, key="mem_train", bind="query-params",
                             help="Where training ended: what lies beyond was never seen.")  # fmt: skip
with fourth:
    every = st.number_input("Intervene every (tokens)", 1, 100_000, 64 if task == "segmented_recall" else trained,
                            key="mem_every", bind="query-params", disabled=analysis != "mitigations")  # fmt: skip

layer = here.layer if here.layer in loaded.recurrent else next(iter(loaded.recurrent), 0)
settings: dict[str, Any] = {"rows": int(rows), "time": int(time), "train_length": int(length)}
settings |= {"every": int(every)} if analysis == "mitigations" else {}
settings |= {"layer": layer} if analysis == "curve" else {}
if analysis == "carry" and st.toggle(
    f"Plant a head in layer {layer} that never forgets (positive control)", key="mem_plant", bind="query-params"
):
    settings |= {"planted": True, "layer": layer}
key = memory_work.memory_key(loaded.source, analysis, settings)


def _start() -> None:
    what = (key, loaded.source.name, analysis, settings)
    runner().submit(key, f"{words}: {loaded.source.name}", lambda tick: memory_work.run_memory(*what, tick))


def _carry(result: Any) -> None:
    shown = layer if layer in result.layers else result.layers[0]
    at = result.layers.index(shown)
    have = {"retention": result.log_retention, "rank": result.rank, "saturation": result.saturation}
    curves = [c for c in _CURVES if c not in have or have[c][at] is not None]
    what = st.segmented_control("Draw", curves, default="norm", required=True, key="mem_draw") or "norm"
    alt = f"{what} of each head against position"
    chart(result, partial(result.figure, what, shown), key="memory-carry", alt=alt)
    left, right = st.columns(2)
    with left:
        chart(result, partial(result.channel_figure, shown), key="memory-channels", alt="channel norms", narrow=True)
    with right:
        if any(x is not None and len(x) for x in result.outside):
            chart(result, result.range_figure, key="memory-range", alt="units outside the training range", narrow=True)
        else:
            st.info("No position lies inside the training length, or none beyond: nothing to compare a range with.")
    chart(result, result.loss_figure, key="memory-window-loss", alt="loss by position")


def _mitigations(result: Any) -> None:
    (st.error if result.verdict.startswith("collapse") else st.info)(
        result.verdict[:1].upper() + result.verdict[1:] + "."
    )
    options = ["loss", "rms"] if task is None else ["accuracy", "loss", "rms"]
    what = st.segmented_control("Draw", options, default=options[0], required=True, key="mem_draw_mit") or options[0]
    chart(result, partial(result.figure, what), key="memory-mitigations", alt=f"{what} by position, a line a run")
    st.dataframe(
        [
            {
                "run": run,
                "control": i in result.controls,
                "accuracy far beyond": float(a),
                "loss far beyond (nats)": float(b),
            }
            for i, (run, a, b) in enumerate(
                zip(result.runs, result.beyond("accuracy"), result.beyond("loss"), strict=True)
            )
        ],
        hide_index=True,
    )


result: "Result | None" = kept_result(key)
job = runner().get(key)
st.button(
    "Run again" if result is not None else "Run",
    type="secondary" if result is not None else "primary",
    icon=":material/play_arrow:",
    key="memory-run",
    on_click=_start,
    disabled=job is not None and not job.finished,
)
if job_panel(key) or result is None:
    st.stop()
shown = cast("Any", result)
say_if_partial(shown)
if analysis == "carry":
    _carry(shown)
elif analysis == "mitigations":
    _mitigations(shown)
else:
    chart(shown, shown.figure, key=f"memory-{analysis}", alt=words or "")
footer(shown)
