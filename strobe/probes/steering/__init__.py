"""Steering: contrast pairs to a vector, at a hook point or of the carry; the vector applied, and swept beside controls.

After Paulo, Marshall and Belrose 2024 (arXiv:2404.05971), who steer the residual stream of recurrent models with the
means of contrast pairs (Rimsky et al. 2023, arXiv:2312.06681) and, as an experiment, their states.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "Pair": "strobe.probes.steering.contrast",
    "Selector": "strobe.probes.steering.contrast",
    "Steering": "strobe.probes.steering.apply",
    "SteeringVector": "strobe.probes.steering.vector",
    "Where": "strobe.probes.steering.apply",
    "contrast_vector": "strobe.probes.steering.contrast",
    "read_gguf": "strobe.probes.steering.gguf",
    "write_gguf": "strobe.probes.steering.gguf",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'strobe.probes.steering' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
