"""What the page of dynamics asks of the probe: answers kept by the model's stamp, the layer and what is held."""

from typing import Any

import streamlit as st

from strobe.dashboards.loading import Loaded

# Initial carries of a search: enough for the bundled networks, and an answer within seconds.
N_INITIAL = 256

Held = tuple[int, ...] | tuple[float, ...]
"""Token ids that come in turn, or real inputs."""


def is_searched(loaded: Loaded, layer: int) -> bool:
    """Whether this layer is nonlinear in its carry, so that its fixed points are searched and not solved."""
    from strobe.probes.fixed_points.held import NONLINEAR

    return loaded.model.mixers[f"blocks.{layer}.mixer"].family.name in NONLINEAR


def n_inputs(loaded: Loaded) -> int:
    """How many real numbers the model reads a step; 0 where it reads tokens."""
    return int(getattr(getattr(loaded.model, "config", None), "d_input", 0) or 0)


def points(loaded: Loaded, layer: int, held: Held) -> Any:
    """The `FixedPoints` of a nonlinear layer."""
    return _points(loaded, loaded.source.name, loaded.source.stamp, layer, held)


def solved(loaded: Loaded, layer: int, held: Held) -> Any:
    """The `HeldFixedPoint` of a layer linear in its carry."""
    return _solved(loaded, loaded.source.name, loaded.source.stamp, layer, held)


def stack(loaded: Loaded, held: Held) -> Any:
    """The `HeldStack` of the whole model."""
    return _stack(loaded, loaded.source.name, loaded.source.stamp, held)


@st.cache_resource(max_entries=32, show_spinner="Searching for fixed points")
def _points(_loaded: Loaded, name: str, stamp: str, layer: int, held: Held) -> Any:
    from strobe.probes.fixed_points import fixed_points

    with _loaded.lock:
        return fixed_points(_loaded.model, layer=layer, held=list(held), n_initial=N_INITIAL)


@st.cache_resource(max_entries=32, show_spinner="Solving for the fixed point")
def _solved(_loaded: Loaded, name: str, stamp: str, layer: int, held: Held) -> Any:
    from strobe.probes.fixed_points import held_fixed_point

    with _loaded.lock:
        return held_fixed_point(_loaded.model, list(held), layer)


@st.cache_resource(max_entries=32, show_spinner="Bringing every layer to rest")
def _stack(_loaded: Loaded, name: str, stamp: str, held: Held) -> Any:
    from strobe.probes.fixed_points import held_stack

    with _loaded.lock:
        return held_stack(_loaded.model, list(held))
