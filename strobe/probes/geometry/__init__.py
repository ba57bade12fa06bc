"""Layer-update geometry: how much of what a block does to a token depends on that token's own vector alone.

After Yoo 2026 (arXiv:2604.02459). Its full text was not at hand: sizes, the choice of penalties, the controls and the
exact functional measure are ours, and each file says so where it matters.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "LayerGeometry": "strobe.probes.geometry.result",
    "Sequences": "strobe.probes.geometry.sequences",
    "layer_geometry": "strobe.probes.geometry.probe",
    "library_sequences": "strobe.probes.geometry.sequences",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'strobe.probes.geometry' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
