"""Steering: contrast pairs to a vector, at a hook point or of the carry; the vector applied, and swept beside controls.

After Paulo, Marshall and Belrose 2024 (arXiv:2404.05971), who steer the residual stream of recurrent models with the
means of contrast pairs (Rimsky et al. 2023, arXiv:2312.06681) and, as an experiment, their states.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "ContrastSet": "strobe.probes.steering.contrast_sets",
    "Pair": "strobe.probes.steering.contrast",
    "Question": "strobe.probes.steering.questions",
    "Selector": "strobe.probes.steering.contrast",
    "SteeredText": "strobe.probes.steering.play",
    "Steering": "strobe.probes.steering.apply",
    "SteeringSweep": "strobe.probes.steering.sweep_result",
    "SteeringVector": "strobe.probes.steering.vector",
    "Where": "strobe.probes.steering.apply",
    "contrast_set": "strobe.probes.steering.contrast_sets",
    "contrast_vector": "strobe.probes.steering.contrast",
    "load_caa": "strobe.probes.steering.contrast_sets",
    "read_gguf": "strobe.probes.steering.gguf",
    "steered_text": "strobe.probes.steering.play",
    "steering_sweep": "strobe.probes.steering.sweep",
    "write_gguf": "strobe.probes.steering.gguf",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'strobe.probes.steering' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
