"""A job on a page: how far it is, a way to stop it, and what went wrong."""

import streamlit as st

from strobe.dashboards.jobs import runner
from strobe.dashboards.plain import plain

_EVERY = 0.5


def job_panel(key: str, *, kept: bool = False) -> bool:
    """Show the job `key`, polling while it runs; returns whether it is unfinished. The page is drawn again when it
    ends. `kept`: what was finished before it was cancelled is on the page.
    """
    job = runner().get(key)
    if job is None or job.state == "done":
        return False
    if job.state == "failed":
        st.error(plain(job.error), icon=":material/error:")
        st.button("Dismiss", key=f"{key}-dismiss", on_click=runner().dismiss, args=(key,))
        return False
    if job.state == "cancelled":
        rest = "What was finished is shown." if kept else "Nothing was kept."
        st.info(f"{plain(job.label)}: cancelled. {rest}", icon=":material/block:")
        return False
    _poll(key)
    return True


@st.fragment(run_every=_EVERY)
def _poll(key: str) -> None:
    job = runner().get(key)
    if job is None or job.finished:
        st.rerun()
    assert job is not None
    ahead = runner().ahead_of(job)
    waiting = f"waiting for {ahead} other job{'s' if ahead > 1 else ''}" if job.state == "queued" and ahead else ""
    step = f" · {job.done}/{job.total}" if job.total else ""
    said = "stopping at the next step" if job.cancelling else waiting or job.message or "starting"
    with st.container(border=True):
        st.progress(job.fraction, text=f"**{plain(job.label)}** · {plain(said)}{step}")
        st.button("Cancel", key=f"{key}-cancel", on_click=job.cancel, disabled=job.cancelling, icon=":material/stop:")
