"""Elementwise linear recurrences: minGRU, minLSTM, LRU, S4D, S5, RG-LRU, HGRN, GateLoop."""

from types import ModuleType

from strobe.kernels.diagonal.chunked import run
from strobe.kernels.diagonal.recurrence import diagonal_scan
from strobe.kernels.diagonal.reference import (
    DiagonalCarry,
    DiagonalSignals,
    attention,
    hold,
    init_carry,
    reader,
    step,
    transition,
)
from strobe.kernels.reference import loop
from strobe.kernels.scan import Family
from strobe.kernels.triton.backend import TritonBackend


def _triton() -> ModuleType:
    from strobe.kernels.diagonal import triton

    return triton


DIAGONAL = Family(
    name="diagonal",
    step=step,
    init_carry=init_carry,
    reader=reader,
    hold=hold,
    backends={"reference": loop(step, reader), "chunked": run, "triton": TritonBackend(_triton)},
    transition=transition,
    attention=attention,
)

__all__ = ["DIAGONAL", "DiagonalCarry", "DiagonalSignals", "diagonal_scan"]
