"""The long work of the geometry page: every block in turn, and what is done kept when the run is cancelled."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Cancelled, Tick

if TYPE_CHECKING:
    from strobe.probes.geometry import LayerGeometry

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

    tick(0, 1, "loading the model")
    model = loading.load(loading.find(name)).model
    done: list[LayerGeometry] = []
    try:
        result = layer_geometry(model, progress=tick, partial=done.append, **settings)
    except Cancelled:
        if not done:
            raise
        result = done[-1]
    return store.keep(key, result)
