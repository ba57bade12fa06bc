"""Work that can be cut short: what a probe had found by then is kept as the result."""

from collections.abc import Callable
from pathlib import Path

from strobe.core.result import Result
from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Cancelled, Tick


def keep_what_is_found(
    key: str, name: str, tick: Tick, probe: Callable[..., Result], *, first: str = "loading the model"
) -> Path:
    """Run ``probe(model, progress=, partial=)`` on a copy of the model called `name` and keep its result under `key`.

    Of a job that is cancelled, the last result that was given to `partial` is kept, and the job ends as one that is
    done: the result itself says what is missing from it. Raises Cancelled where there was none yet. `first`: what is
    said while the model is loaded.
    """
    tick(0, 1, first)
    model = loading.load(loading.find(name)).model
    return keep_last(key, tick, lambda **how: probe(model, **how))


def keep_last(key: str, tick: Tick, probe: Callable[..., Result]) -> Path:
    """The same of ``probe(progress=, partial=)``, which has what it asks."""
    last: list[Result] = []
    try:
        result = probe(progress=tick, partial=lambda found: last.__setitem__(slice(None), [found]))
    except Cancelled:
        if not last:
            raise
        (result,) = last
    return store.keep(key, result)
