"""Exact and data-driven methods of dynamics: cycles, exponents, modes, timescales, waves. Names load on first use."""

from importlib import import_module as _import_module
from typing import Any as _Any

_HERE = "strobe.probes.dynamics"
_EXPORTS = {
    "Autocorrelation": f"{_HERE}.timescales",
    "Cycles": f"{_HERE}.cycles",
    "DynamicModes": f"{_HERE}.koopman",
    "Forcing": f"{_HERE}.teacher_forcing",
    "LyapunovSpectrum": f"{_HERE}.lyapunov_result",
    "PiecewiseLinear": f"{_HERE}.piecewise_linear",
    "Waves": f"{_HERE}.waves",
    "almost_linear_rnn": f"{_HERE}.piecewise_linear",
    "autocorrelation_timescales": f"{_HERE}.timescales",
    "d_hellinger": f"{_HERE}.dynamical_similarity",
    "d_stsp": f"{_HERE}.dynamical_similarity",
    "driven_lyapunov_spectrum": f"{_HERE}.driven",
    "dynamic_modes": f"{_HERE}.koopman",
    "fit_by_forcing": f"{_HERE}.teacher_forcing",
    "linearly_recurrent_autoencoder": f"{_HERE}.lran",
    "lyapunov_spectrum": f"{_HERE}.lyapunov",
    "piecewise_linear_cycles": f"{_HERE}.scyfi",
    "plrnn": f"{_HERE}.piecewise_linear",
    "relu_rnn": f"{_HERE}.piecewise_linear",
    "shallow_plrnn": f"{_HERE}.piecewise_linear",
    "travelling_waves": f"{_HERE}.waves",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {_HERE!r} has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
