"""Models: native ones that train, Hugging Face ones whose recurrences are ours, and one contract for both.

Names load on first use: a corpus or a training loop should not wait for transformer-lens.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "HookedLM": "strobe.models.native",
    "ModelConfig": "strobe.models.config",
    "ModelState": "strobe.models.state",
    "StateContract": "strobe.models.hooked",
    "StateEdit": "strobe.models.hooked",
    "available": "strobe.models.zoo",
    "load": "strobe.models.loading",
    "load_checkpoint": "strobe.models.checkpoint",
    "save_checkpoint": "strobe.models.checkpoint",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'strobe.models' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
