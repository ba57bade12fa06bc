"""A page opened headless with a view in its link, and the jobs that its buttons start, waited for."""

import time
from pathlib import Path

from streamlit.testing.v1 import AppTest

from strobe.dashboards import jobs

_ENTRY = Path(jobs.__file__).parent / "entry" / "app.py"
# Longest wait for one run of a page, and for one job.
_SECONDS = 120


def open_page(page: str, /, **view: object) -> AppTest:
    """The page of that name, after it was opened by a link with `view`."""
    at = AppTest.from_file(str(_ENTRY), default_timeout=_SECONDS)
    for name, value in view.items():
        at.query_params[name] = str(value)
    at.run()
    # The app begins at this one, which has no link of its own.
    return at if page == "start" else at.switch_page(f"../pages/{page}.py").run()


def start_job(at: AppTest, button: str) -> str:
    """Press the button and return the key of the one job that this started; a job of a key seen before is a new job."""
    before = jobs.runner().jobs()
    at.button(key=button).click().run()
    (job,) = (job for job in jobs.runner().jobs() if not any(job is old for old in before))
    return job.key


def finish(key: str, state: str = "done") -> None:
    """Wait until the job of `key` has ended, which has to be in `state`; the page is as it was before."""
    job, until = jobs.runner().get(key), time.monotonic() + _SECONDS
    assert job is not None, f"there is no job {key}"
    while not job.finished and time.monotonic() < until:
        time.sleep(0.05)
    assert job.state == state, f"job {key} is {job.state}: {job.error or job.message}"


def run_job(at: AppTest, button: str, state: str = "done") -> str:
    """Press the button, wait until its job has ended in `state`, and return the job's key."""
    finish(key := start_job(at, button), state)
    return key
