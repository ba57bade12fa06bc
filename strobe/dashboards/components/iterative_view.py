"""Whether each block goes downhill in the loss, and the loss without it: a job over held-out library files."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from strobe.dashboards import loading, store
from strobe.dashboards.components.charts import chart
from strobe.dashboards.components.footer import footer
from strobe.dashboards.components.job_panel import job_panel
from strobe.dashboards.components.kept import kept_result, run_button, say_if_partial
from strobe.dashboards.jobs import Tick, runner
from strobe.dashboards.partial import keep_what_is_found

if TYPE_CHECKING:
    from strobe.probes.lens import IterativeInference

N_TOKENS = 2048


def iterative_view(loaded: loading.Loaded) -> None:
    """What is known of it, a button that starts the job, and its figures; nothing in a model that reads no text."""
    if loaded.model.tokenizer is None:
        return
    st.subheader("Does each block go downhill?", anchor=False)
    st.markdown(
        "If a model **infers iteratively** (Jastrzębski et al. 2018; Belrose et al. 2023, appendix C), each block "
        "moves a token along minus the gradient of the loss, and no single block is needed but the first. Two "
        "gradients are shown: of the model's own loss through the blocks above, and of what it would predict if it "
        "stopped there. "
        f"About {N_TOKENS:,} tokens of held-out library files; the controls are ours."
    )
    key = key_of(loaded.source)
    result: IterativeInference | None = kept_result(key)

    def start() -> None:
        work = partial(run, key, loaded.source.name)
        runner().submit(key, f"Iterative inference of {loaded.source.name}", work)

    run_button("Compare updates with gradients", start, job=key, there=result is not None, key="iterative-run")
    if job_panel(key, kept=result is not None) or result is None:
        return
    say_if_partial(result)
    left, right = st.columns(2, gap="medium")
    with left:
        alt = "cosine of each block's updates and minus the gradient, beside controls"
        chart(result, result.figure, key="lens-iterative", alt=alt, narrow=True)
    with right:
        alt = "loss with each block left out, and with random updates in its place"
        chart(result, result.deletion_figure, key="lens-deletion", alt=alt, narrow=True)
    with st.expander("Table", key="iterative-table"):
        st.dataframe(result.to_frame(), hide_index=True)
    footer(result)


def key_of(source: loading.Source) -> str:
    """The job's key and the result's name."""
    return store.key_of("lens-iterative", model=source.name, stamp=source.stamp, n_tokens=N_TOKENS)


def run(key: str, name: str, tick: Tick) -> Path:
    """Ask the probe about the model called `name` and keep the answer under `key`; of a cancelled job, over the rows
    that were read."""
    from strobe.probes.lens import iterative_inference

    def probe(model: Any, *, progress: Tick, partial: Any) -> "IterativeInference":
        return iterative_inference(model, n_tokens=N_TOKENS, on_progress=progress, partial=partial)

    return keep_what_is_found(key, name, tick, probe)
