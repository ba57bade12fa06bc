"""Attribution: which part of a model writes the difference between two answers into the residual stream."""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "LogitAttribution": "strobe.probes.attribution.result",
    "direct_logit_attribution": "strobe.probes.attribution.direct",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(
        f"module 'strobe.probes.attribution' has no attribute {name!r}; it exports {', '.join(__all__)}"
    )


def __dir__() -> list[str]:
    return sorted(__all__)
