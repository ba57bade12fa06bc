"""Progress of long work on a terminal: one line that is written over, and silence where nobody watches."""

import sys
import time
from collections.abc import Callable

# Seconds between two lines.
_EVERY = 0.2


def progress() -> Callable[[int, int, str], None]:
    """A `tick` that writes to stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        return lambda done, total, message: None
    last = 0.0

    def tick(done: int, total: int, message: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _EVERY or done == total:
            last = now
            end = "\n" if done == total else ""
            sys.stderr.write(f"\r\033[K{done}/{total}  {message}{end}")
            sys.stderr.flush()

    return tick
