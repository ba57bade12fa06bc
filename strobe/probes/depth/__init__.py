"""Depth as time: a model's blocks as steps of a dynamical system, its phases, and a surrogate of fewer, shared blocks.

After the Block-Recurrent Hypothesis (arXiv:2512.19941), whose code of the dynamics is not released: the formulas of the
measures are ours, and so are the contiguous phases (the released code does not ask for contiguity), all controls, and
the surrogate for models of any kind.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "BlockRecurrence": "strobe.probes.depth.surrogate_result",
    "DepthDynamics": "strobe.probes.depth.result",
    "block_recurrence": "strobe.probes.depth.surrogate",
    "depth_dynamics": "strobe.probes.depth.dynamics",
    "phases": "strobe.probes.depth.phases",
    "tied_copy": "strobe.probes.depth.tying",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'strobe.probes.depth' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
