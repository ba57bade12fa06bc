"""The long work of the cells page: a search through every unit; of a cancelled one, what the trained model gave."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Cancelled, Tick

if TYPE_CHECKING:
    from strobe.probes.cells import CellSearch, CellText


def key_of(source: loading.Source, settings: dict[str, Any]) -> str:
    """The job's key and the result's name, from everything that decides it."""
    return store.key_of("cells", model=source.name, stamp=source.stamp, **settings)


def run(key: str, name: str, settings: dict[str, Any], tick: Tick) -> Path:
    """Search the model called `name` as `settings` (arguments of `search_cells`) say, and keep the result under `key`;
    of a search cancelled while the untrained control runs, what there was before it."""
    from strobe.probes.cells import search_cells

    tick(0, 1, "loading the model")
    model = loading.load(loading.find(name)).model
    done: list[CellSearch] = []
    try:
        result = search_cells(model, progress=tick, partial=done.append, **settings)
    except Cancelled:
        if not done:
            raise
        result = done[-1]
    return store.keep(key, result)


def along(loaded: loading.Loaded, tokens: tuple[int, ...], unit: tuple[int, str, int]) -> "CellText":
    """One unit, (layer, field, number), after each of `tokens`."""
    from strobe.probes.cells import cell_text

    with loaded.lock:
        return cell_text(loaded.model, tokens, *unit)
