"""Ctrl-C as the cancel of a command: long work ends at its next step, and what it has found by then is written."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from strobe.commands.common.opening import write
from strobe.commands.common.progress import progress
from strobe.core.result import Result

Tick = Callable[[int, int, str], None]
R = TypeVar("R", bound=Result)


@contextmanager
def stoppable() -> Iterator[Tick]:
    """A `tick` to watch long work by, which raises KeyboardInterrupt at the step after Ctrl-C; a second Ctrl-C ends the
    work where it is.

    An interrupt in the middle of a step would leave nothing that could be kept. Signals reach the main thread alone:
    elsewhere this is `progress`.
    """
    asked, shown = threading.Event(), progress()

    def tick(done: int, total: int, message: str) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        shown(done, total, message)

    def stop(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        sys.stderr.write("\nstopping at the next step (Ctrl-C again: at once)\n")

    if threading.current_thread() is not threading.main_thread():
        yield tick
        return
    before = signal.signal(signal.SIGINT, stop)
    try:
        yield tick
    finally:
        signal.signal(signal.SIGINT, before)


def write_what_is_found(
    ask: Callable[..., R],
    out: Path,
    say: Callable[[str], None],
    figure: Callable[[R], Callable[..., Any] | None] | None = None,
) -> R:
    """Write, as `write` does, the result of ``ask(progress=, partial=)``; of one that Ctrl-C stopped, the last that was
    given to `partial`, if any, which says itself what is missing. `figure`: what of the result draws it.

    Raises KeyboardInterrupt after a result that was stopped, so that the command's status says so.
    """
    last: list[R] = []
    try:
        with stoppable() as tick:
            result = ask(progress=tick, partial=lambda found: last.__setitem__(slice(None), [found]))
    except KeyboardInterrupt:
        if last:
            say("stopped; what was found by then:")
            write(last[0], out, say, figure(last[0]) if figure is not None else None)
        raise
    write(result, out, say, figure(result) if figure is not None else None)
    return result
