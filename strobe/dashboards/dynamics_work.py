"""The long work of the page of dynamics: what lies between fixed points, and depth as time; kept by what decides it."""

from pathlib import Path
from typing import Any

from strobe.core.result import Result
from strobe.dashboards import loading, store
from strobe.dashboards.held import N_INITIAL, Held
from strobe.dashboards.jobs import Tick
from strobe.dashboards.partial import keep_last

BETWEEN = {
    "basins": "Basins: which stable point a carry comes to",
    "directions": "Unstable directions: where the recurrence goes when it leaves a saddle",
    "cycles": "Cycles: carries it comes back to",
    "curves": "Lines and rings: carries it leaves where they are, in a row",
}
DEPTH = {
    "block": "One block again and again",
    "exponents": "Disturbances on their way through the blocks",
    "exchange": "Blocks in each other's place",
}
# Tokens of the text that depth is asked about: one batch of copies for each of their numbers.
MAX_DEPTH_TOKENS = 24
_CYCLES = (1, 2, 3, 4)
_TIMES = 300


def between_key(source: loading.Source, layer: int, held: Held, what: str) -> str:
    """The job's key and the result's name, from everything that decides it."""
    return store.key_of("dynamics", model=source.name, stamp=source.stamp, layer=layer, held=list(held), what=what)


def depth_key(source: loading.Source, ids: tuple[int, ...], layer: int, what: str) -> str:
    """The same for depth as time; only one block again and again depends on the layer."""
    layer = layer if what == "block" else -1
    return store.key_of("depth-time", model=source.name, stamp=source.stamp, ids=list(ids), layer=layer, what=what)


def has_steps(folder: Path) -> bool:
    """Whether the model came with its training steps."""
    from strobe.models.zoo import training_steps

    return training_steps.has_steps(folder)


def training_key(source: loading.Source) -> str:
    """The key of the fixed points over training; nothing is held, so the model decides it."""
    return store.key_of("dynamics-training", model=source.name, stamp=source.stamp)


def training(key: str, folder: str, tick: Tick) -> Path:
    """The fixed points after each of the training steps in `folder`, or those reached when it was cancelled; kept."""
    from strobe.models.zoo.training_steps import load_steps
    from strobe.probes.fixed_points import fixed_points_over_training

    steps = load_steps(folder)
    return keep_last(key, tick, lambda **how: fixed_points_over_training(steps, n_initial=N_INITIAL, **how))


def between(key: str, name: str, layer: int, held: Held, what: str, tick: Tick) -> Path:
    """Search the layer's fixed points and then, as `what` says, what lies between them; kept under `key`, of a
    cancelled run what it had: the carries that were run, the saddles, lengths or curves that were finished."""
    tick(0, 1, "loading the model")
    model = loading.load(loading.find(name)).model
    return keep_last(key, tick, lambda **how: _between(model, layer, held, what, **how))


def _between(model: Any, layer: int, held: Held, what: str, *, progress: Tick, partial: Any) -> Result:
    from strobe.probes import fixed_points as probe

    given: dict[str, Any] = {"held": list(held), "layer": layer}
    how = {"progress": progress, "partial": partial}
    if what == "cycles":
        return probe.cycles(model, _CYCLES, n_initial=N_INITIAL, **given, **how)
    progress(0, 1, "searching for fixed points")
    points = probe.fixed_points(model, n_initial=N_INITIAL, control=None, **given)
    if what == "basins":
        return probe.basins(model, points, **given, **how)
    if what == "directions":
        return probe.unstable_manifolds(model, points, **given, **how)
    return probe.continua(model, points, **given, **how)


def depth(key: str, name: str, ids: tuple[int, ...], layer: int, what: str, tick: Tick) -> Path:
    """Depth as time, as `what` says, for the text `ids`; kept under `key`, of a cancelled run the steps that were made
    or the pairs that were tried."""
    from strobe.probes import fixed_points as probe

    tick(0, 1, "loading the model")
    model = loading.load(loading.find(name)).model
    text = list(ids)
    if what == "exponents":
        return store.keep(key, probe.layer_exponents(model, text))
    if what == "block":
        return keep_last(key, tick, lambda **how: probe.depth_orbit(model, text, layers=layer, steps=_TIMES, **how))
    return keep_last(key, tick, lambda **how: probe.layer_swaps(model, text, **how))
