"""Interpretable cells (Karpathy, Johnson & Fei-Fei 2015, arXiv:1506.02078): units that follow what a text is about.

The automatic search, its targets, its controls and every figure here are ours; the paper looked by hand.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "CellSearch": "strobe.probes.cells.search_result",
    "CellText": "strobe.probes.cells.coloured_text",
    "ErrorTypes": "strobe.probes.cells.errors",
    "GateSaturation": "strobe.probes.cells.gates",
    "TokenImportance": "strobe.probes.cells.importance",
    "TransitionView": "strobe.probes.cells.transitions",
    "cell_text": "strobe.probes.cells.coloured_text",
    "error_types": "strobe.probes.cells.errors",
    "gate_saturation": "strobe.probes.cells.gates",
    "search_cells": "strobe.probes.cells.search",
    "source_labels": "strobe.probes.cells.labels",
    "token_importance": "strobe.probes.cells.importance",
    "transition_view": "strobe.probes.cells.transitions",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'strobe.probes.cells' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
