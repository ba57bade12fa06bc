"""Oracle: events. Work that waits for the test is where the test says it is, so no sleep decides a result."""

import threading

import pytest

from strobe.dashboards.jobs import Job, JobRunner, Tick


class Held:
    """Work that ticks once, then waits until it is let go, then ticks again."""

    def __init__(self) -> None:
        self.begun, self.go, self.ended, self.runs = threading.Event(), threading.Event(), threading.Event(), 0

    def __call__(self, tick: Tick) -> str:
        self.runs += 1
        try:
            tick(1, 4, "first")
            self.begun.set()
            assert self.go.wait(10)
            tick(2, 4, "second")
            return "answer"
        finally:
            self.ended.set()


@pytest.fixture
def runner():
    made = JobRunner()
    yield made
    made.shutdown(wait=True)


def settled(job: Job) -> Job:
    for _ in range(2000):
        if job.finished:
            return job
        threading.Event().wait(0.005)
    raise AssertionError(f"{job} did not finish")


def test_progress_is_seen_while_it_runs(runner):
    work = Held()
    job = runner.submit("k", "Work", work)
    assert work.begun.wait(10)
    assert (job.state, job.done, job.total, job.message, job.fraction) == ("running", 1, 4, "first", 0.25)
    work.go.set()
    assert settled(job).state == "done"
    assert job.result == "answer"


def test_a_second_click_attaches_and_a_later_one_starts_anew(runner):
    work = Held()
    first = runner.submit("k", "Work", work)
    assert work.begun.wait(10)
    assert runner.submit("k", "Work", work) is first
    work.go.set()
    settled(first)
    assert work.runs == 1
    again = runner.submit("k", "Work", work)
    assert again is not first
    settled(again)
    assert work.runs == 2


def test_cancelling_ends_the_work_at_its_next_step(runner):
    work = Held()
    job = runner.submit("k", "Work", work)
    assert work.begun.wait(10)
    job.cancel()
    assert job.cancelling
    work.go.set()
    assert settled(job).state == "cancelled"
    assert job.done == 1
    assert job.result is None


def test_a_job_cancelled_in_the_queue_never_runs(runner):
    work, later = Held(), Held()
    first = runner.submit("a", "First", work)
    second = runner.submit("b", "Second", later)
    assert work.begun.wait(10)
    assert second.state == "queued"
    assert runner.ahead_of(second) == 1
    second.cancel()
    work.go.set()
    settled(first)
    assert settled(second).state == "cancelled"
    assert later.runs == 0


def test_a_users_mistake_is_told_and_a_fault_of_ours_is_not(runner, caplog):
    from strobe.dashboards import loading

    told = settled(runner.submit("a", "Load", lambda tick: loading.find("")))
    assert told.state == "failed"
    assert "no model was given" in told.error

    def secret(tick: Tick) -> None:
        raise KeyError("the password is 1234")

    hidden = settled(runner.submit("b", "Work", secret))
    assert hidden.state == "failed"
    assert "1234" not in hidden.error
    error_id = hidden.error.split("Error id ")[1][:8]
    assert error_id in caplog.text
    assert "1234" in caplog.text
    runner.dismiss("b")
    assert runner.get("b") is None


def test_shutdown_cancels_what_runs_and_what_waits():
    runner, work, later = JobRunner(), Held(), Held()
    first, second = runner.submit("a", "First", work), runner.submit("b", "Second", later)
    assert work.begun.wait(10)
    runner.shutdown()
    work.go.set()
    assert settled(first).state == "cancelled"
    assert work.ended.wait(10)
    assert later.runs == 0
    assert second.state in ("queued", "cancelled")


def test_finished_jobs_do_not_pile_up(runner):
    for i in range(40):
        settled(runner.submit(str(i), "Work", lambda tick: None))
    assert len(runner.jobs()) <= 21
