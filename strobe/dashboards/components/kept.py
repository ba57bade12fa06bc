"""A result that a job keeps: opened if it is there, and the button that has it computed."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from strobe.core.errors import ResultFileError
from strobe.dashboards import store
from strobe.dashboards.jobs import runner
from strobe.dashboards.plain import plain


def kept_result(key: str) -> Any:
    """The result kept under `key`, or None; a file that cannot be opened is said and counts as none."""
    try:
        return store.reopen(key)
    except ResultFileError as error:
        st.warning(f"A kept result could not be opened and will be computed again when you run it: {plain(str(error))}")
        return None


def say_if_partial(result: Any) -> None:
    """Say of a `result` that was cut short what is missing from it, as its property `partial` has it."""
    if result.partial:
        st.warning(f"The run was {result.partial}: they are kept. Run again for all.", icon=":material/info:")


def run_button(
    label: str, start: Callable[[], None], *, job: str, there: bool, key: str, again: str = "Run again"
) -> None:
    """The button that calls `start`: `label`, or `again` where the result is `there`. Off while the job `job` runs."""
    running = runner().get(job)
    st.button(
        again if there else label,
        type="secondary" if there else "primary",
        icon=":material/play_arrow:",
        key=key,
        on_click=start,
        disabled=running is not None and not running.finished,
    )
