"""The long work of the geometry page: every block in turn, and what is done kept when the run is cancelled."""

from functools import partial
from pathlib import Path
from typing import Any

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Tick
from strobe.dashboards.partial import keep_what_is_found

MAPS = ("low_rank", "diagonal", "orthogonal", "mlp", "linear", "constant", "identity")
MEASURES = {
    "cosine": "Cosine",
    "angle": "Angle",
    "error": "Relative error",
    "energy": "Energy in the tokenwise subspace",
    "energy_residual": "Energy of the residual there",
    "cosine_residual": "Cosine with the residual",
}


def key_of(source: loading.Source, settings: dict[str, Any]) -> str:
    """The job's key and the result's name, from everything that decides it."""
    return store.key_of("geometry", model=source.name, stamp=source.stamp, **settings)


def run(key: str, name: str, settings: dict[str, Any], tick: Tick) -> Path:
    """Measure every block of the model called `name` on library text as `settings` (arguments of `layer_geometry`)
    say, and keep the result under `key`; of a cancelled run the blocks that were finished, if any."""
    from strobe.probes.geometry import layer_geometry

    return keep_what_is_found(key, name, tick, partial(layer_geometry, **settings))
