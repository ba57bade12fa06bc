"""Fixed points, slow points and spectra of recurrences under a held input. Names load on first use."""

from importlib import import_module as _import_module
from typing import Any as _Any

_HERE = "strobe.probes.fixed_points"
_EXPORTS = {
    "Basins": f"{_HERE}.basin",
    "Continua": f"{_HERE}.continuum",
    "KCycles": f"{_HERE}.k_cycles",
    "DepthOrbit": f"{_HERE}.depth_orbit_result",
    "FixedPoints": f"{_HERE}.result",
    "FixedPointsOverTraining": f"{_HERE}.over_training",
    "HeldFixedPoint": f"{_HERE}.spectrum",
    "HeldStack": f"{_HERE}.stack",
    "LayerExponents": f"{_HERE}.exponents_in_depth",
    "LayerSwaps": f"{_HERE}.swaps_in_depth",
    "Limits": f"{_HERE}.outcome",
    "System": f"{_HERE}.system",
    "UnstableManifolds": f"{_HERE}.manifold",
    "basins": f"{_HERE}.basin",
    "continua": f"{_HERE}.continuum",
    "cycles": f"{_HERE}.k_cycles",
    "depth_orbit": f"{_HERE}.depth_time",
    "fixed_points": f"{_HERE}.probe",
    "fixed_points_over_training": f"{_HERE}.over_training",
    "from_function": f"{_HERE}.system",
    "from_module": f"{_HERE}.modules",
    "held_fixed_point": f"{_HERE}.spectrum",
    "held_stack": f"{_HERE}.stack",
    "iterated": f"{_HERE}.system",
    "layer_exponents": f"{_HERE}.exponents_in_depth",
    "layer_swaps": f"{_HERE}.swaps_in_depth",
    "unstable_manifolds": f"{_HERE}.manifold",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {_HERE!r} has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
