"""strobe: a mechanistic-interpretability workbench for recurrent and transformer sequence models.

Importing the package is free: torch, transformer-lens and the rest load on first use of a name below.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

__version__ = "0.1.0"

_EXPORTS = {
    "load": "strobe.models",
    "available": "strobe.models.zoo",
    "HookedLM": "strobe.models",
    "ModelConfig": "strobe.models",
    "ModelState": "strobe.models",
    "StateEdit": "strobe.models",
    "LogitLens": "strobe.probes",
    "TunedLens": "strobe.probes",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'strobe' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
