"""Long work in the background: progress, cancelling, and one job for one question however often it is asked.

No streamlit here: pages poll. Python cannot stop a thread, so work calls `tick` between its steps and a cancelled job
ends at the next one. Work never calls streamlit and hands back plain data.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from strobe.dashboards.problems import is_users

State = Literal["queued", "running", "done", "failed", "cancelled"]
Tick = Callable[[int, int, str], None]
Work = Callable[[Tick], Any]

# Finished jobs that are remembered; their results are on disk.
_KEPT = 20
_log = logging.getLogger("strobe.dashboards")


class Cancelled(Exception):
    """Raised inside work by `tick` after its job was cancelled."""


@dataclass
class Job:
    """One piece of work. `error` is fit to be shown: the message of the user's mistake, or the id of a logged
    failure.
    """

    key: str
    label: str
    state: State = "queued"
    done: int = 0
    total: int = 0
    message: str = ""
    result: Any = None
    error: str = ""
    submitted: float = field(default_factory=time.time)
    _cancel: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def finished(self) -> bool:
        """Whether it is done, failed or cancelled."""
        return self.state in ("done", "failed", "cancelled")

    @property
    def fraction(self) -> float:
        """How much of it is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    def cancel(self) -> None:
        """Ask it to end at its next step."""
        self._cancel.set()

    @property
    def cancelling(self) -> bool:
        """Whether it was asked to end and has not yet."""
        return self._cancel.is_set() and not self.finished

    def tick(self, done: int, total: int, message: str = "") -> None:
        """Called by the work: `done` of `total` steps. Raises Cancelled if someone cancelled."""
        if self._cancel.is_set():
            raise Cancelled
        self.done, self.total, self.message = done, total, message


class JobRunner:
    """Runs jobs one after another by default: there is one machine, and two fits at once are slower than in turn."""

    def __init__(self, workers: int = 1) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="strobe-job")
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def submit(self, key: str, label: str, work: Work) -> Job:
        """Start `work`, or attach to the job of the same `key` that has not finished."""
        with self._lock:
            running = self._jobs.get(key)
            if running is not None and not running.finished:
                return running
            job = self._jobs[key] = Job(key, label)
            self._forget()
        self._pool.submit(_run, job, work)
        return job

    def get(self, key: str) -> Job | None:
        """The latest job of `key`, or None."""
        return self._jobs.get(key)

    def jobs(self) -> list[Job]:
        """Every remembered job, oldest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda j: j.submitted)

    def ahead_of(self, job: Job) -> int:
        """How many unfinished jobs were submitted before `job`."""
        return sum(1 for j in self.jobs() if not j.finished and j.submitted < job.submitted)

    def dismiss(self, key: str) -> None:
        """Forget a finished job, its error too."""
        with self._lock:
            if (job := self._jobs.get(key)) is not None and job.finished:
                del self._jobs[key]

    def shutdown(self, wait: bool = False) -> None:
        """Cancel everything; what has not started never will."""
        for job in self.jobs():
            job.cancel()
        self._pool.shutdown(wait=wait, cancel_futures=True)

    def _forget(self) -> None:
        finished = [key for key, job in self._jobs.items() if job.finished]
        for key in finished[: max(0, len(finished) - _KEPT)]:
            del self._jobs[key]


def _run(job: Job, work: Work) -> None:
    if job._cancel.is_set():
        job.state = "cancelled"
        return
    job.state = "running"
    try:
        job.result = work(job.tick)
    except Cancelled:
        job.state = "cancelled"
    except Exception as error:  # noqa: BLE001 - whatever the work did wrong, the job ends and says so
        job.error = str(error) if is_users(error) else _logged(error, job)
        job.state = "failed"
    else:
        job.state = "done"


def _logged(error: Exception, job: Job) -> str:
    error_id = uuid.uuid4().hex[:8]
    _log.error("job %s (%s) failed, error id %s", job.key, job.label, error_id, exc_info=error)
    return f"{job.label} failed ({type(error).__name__}). Error id {error_id}: the terminal that runs strobe says more"


@cache
def runner() -> JobRunner:
    """The one runner of this process."""
    return JobRunner()
