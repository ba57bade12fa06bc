"""What is stopped at a step: a probe, as a cancelled job stops it; the job itself; a command, by Ctrl-C."""

import signal
from collections.abc import Callable
from typing import Any

import pytest


class Stopped(Exception):
    """As a cancelled job raises it."""


def stopped(ask: Callable[..., Any], when: Callable[[int, str], bool], *, watched: str = "progress") -> Any:
    """What ``ask(progress=, partial=)`` gave when its progress was told a step of which ``when(done, message)`` is."""

    def progress(done: int, total: int, message: str) -> None:
        if when(done, message):
            raise Stopped

    given: list[Any] = []
    with pytest.raises(Stopped):
        ask(**{watched: progress, "partial": given.append})
    # Once, when it is stopped: a run that is left alone builds no result but its own.
    assert len(given) < 2
    return given[0] if given else None


def stopped_after(ask: Callable[..., Any], steps: int) -> Any:
    """As `stopped`, when the progress is told for the `steps`-th time."""
    told: list[str] = []

    def when(done: int, message: str) -> bool:
        told.append(message)
        return len(told) == steps

    return stopped(ask, when)


def cancelled_at(monkeypatch: pytest.MonkeyPatch, module: Any, work: str, when: Callable[[int, str], bool]) -> None:
    """Have ``module.work(key, ..., tick)`` cancel its own job at the first step of which ``when(done, message)`` is."""
    from strobe.dashboards.jobs import runner

    whole = getattr(module, work)

    def watched(key: str, *given: Any) -> Any:
        *asked, tick = given

        def tell(done: int, total: int, message: str = "") -> None:
            if when(done, message):
                job = runner().get(key)
                assert job is not None
                job.cancel()
            tick(done, total, message)

        return whole(key, *asked, tell)

    monkeypatch.setattr(module, work, watched)


def ctrl_c_at(monkeypatch: pytest.MonkeyPatch, nth: int) -> list[str]:
    """Have Ctrl-C pressed at the `nth` step that a command reports; the steps that it reports."""
    from strobe.commands.common import stopping

    steps: list[str] = []

    def watch(done: int, total: int, message: str) -> None:
        steps.append(message)
        if len(steps) == nth:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(stopping, "progress", lambda: watch)
    return steps
