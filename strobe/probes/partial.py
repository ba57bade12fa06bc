"""Work that can be cut short at any step: what it has by then, handed over before it ends.

Whoever watches a probe may end it by raising from `progress`: a job that is cancelled, a terminal's Ctrl-C. A probe
that takes `partial` gives it the result so far at that moment, and not after every step: a run that is left alone pays
nothing for it. Such a result has a property `partial`: what is missing, in words, "" where nothing is.
"""

from collections.abc import Callable
from typing import TypeVar

Tick = Callable[[int, int, str], None]
R = TypeVar("R")


def keeping(progress: Tick | None, partial: Callable[[R], None] | None, so_far: Callable[[], R | None]) -> Tick:
    """`progress`, which where it raises first has `partial` given what `so_far` returns, if that is anything yet."""

    def tick(done: int, total: int, message: str) -> None:
        if progress is None:
            return
        try:
            progress(done, total, message)
        except BaseException:
            if partial is not None and (found := so_far()) is not None:
                partial(found)
            raise

    return tick
