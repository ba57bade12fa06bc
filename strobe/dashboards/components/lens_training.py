"""Fitting a tuned lens from a page: the settings, the job, and what the fit found."""

import streamlit as st

from strobe.dashboards import asks, store, work
from strobe.dashboards.components.charts import chart
from strobe.dashboards.jobs import runner
from strobe.dashboards.loading import Loaded


def lens_training(loaded: Loaded) -> str:
    """Show what is known about this model's lens and a way to fit one; returns the key of the fit's job."""
    path = work.lens_home(loaded)
    key = store.key_of("lens", model=loaded.source.name, stamp=loaded.source.stamp)
    job = runner().get(key)
    left, right = st.columns([1, 1], gap="medium")
    with left:
        st.markdown(
            "Fitted on the source of Python's standard library, in the background and on a copy of the model; held-out "
            "text judges it. Fitting again replaces the one trained here."
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            steps = st.number_input("Steps", 10, 5000, 400, 10, key="lens_steps", persist_state="session", width=140)
            busy = job is not None and not job.finished
            st.button(
                "Train again" if path.is_file() else "Train a tuned lens",
                type="secondary" if path.is_file() else "primary",
                icon=":material/model_training:",
                key="lens_train",
                on_click=start,
                args=(loaded, key, int(steps)),
                disabled=busy or loaded.model.tokenizer is None,
                help="A fit is running; see below." if busy else None,
            )
    with right:
        _report(loaded)
    return key


def start(loaded: Loaded, key: str, steps: int) -> None:
    """Start the fit, or attach to the one that runs."""
    name, path = loaded.source.name, work.lens_home(loaded)
    runner().submit(key, f"Tuned lens for {name}", lambda tick: work.fit_lens(name, path, tick, steps=steps))


def _report(loaded: Loaded) -> None:
    files, _ = asks.usable_lenses(loaded)
    if not files:
        st.caption("This model has no tuned lens yet. Until one is trained the logit lens is shown.")
        return
    lens, _ = asks.open_lens(loaded, files[0])
    report = None if lens is None else lens.report
    if report is None:
        st.caption(f"The lens {files[0].label} came without a report of its fit.")
        return
    unfolded = st.expander(
        f"How well the lens {files[0].label} fits", icon=":material/query_stats:", key="lens-report", on_change="rerun"
    )
    if not unfolded.open:
        return
    with unfolded:
        chart(report, report.figure, key="lens-fit", alt="held-out KL of tuned and logit lens by layer")
