"""Recurrences as scans: one contract (`strobe.kernels.scan`), one folder a family, one function in every backend."""

from importlib import import_module

from strobe.kernels.edits import Edit
from strobe.kernels.positions import Positions, resolve_positions
from strobe.kernels.scan import Family, ScanResult, scan

__all__ = ["Edit", "Family", "Positions", "ScanResult", "families", "family", "resolve_positions", "scan"]

# Where each family lives: module and the name of its Family there.
_FAMILIES = {
    "diagonal": ("strobe.kernels.diagonal", "DIAGONAL"),
    "selective": ("strobe.kernels.selective", "SELECTIVE"),
    "decay": ("strobe.kernels.decay", "DECAY"),
    "delta": ("strobe.kernels.delta", "DELTA"),
    "wkv": ("strobe.kernels.wkv", "WKV"),
    "elman": ("strobe.kernels.rnn", "ELMAN"),
    "gru": ("strobe.kernels.rnn", "GRU"),
    "lstm": ("strobe.kernels.rnn", "LSTM"),
    "slstm": ("strobe.kernels.rnn", "SLSTM"),
}


def families() -> list[str]:
    """Names of every scan family."""
    return list(_FAMILIES)


def family(name: str) -> Family:
    """The family called `name`. Raises ValueError with the known names."""
    if name not in _FAMILIES:
        raise ValueError(f"there is no scan family {name!r}; there are {', '.join(_FAMILIES)}")
    module, attribute = _FAMILIES[name]
    return getattr(import_module(module), attribute)
