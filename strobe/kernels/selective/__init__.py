"""The selective state space of Mamba-1: a [channels, state] carry with an input-dependent diagonal decay."""

from types import ModuleType

from strobe.kernels.reference import loop
from strobe.kernels.scan import Family
from strobe.kernels.selective.chunked import run
from strobe.kernels.selective.reference import (
    SelectiveCarry,
    SelectiveSignals,
    attention,
    hold,
    init_carry,
    reader,
    step,
    transition,
)
from strobe.kernels.triton.backend import TritonBackend


def _triton() -> ModuleType:
    from strobe.kernels.selective import triton

    return triton


SELECTIVE = Family(
    name="selective",
    step=step,
    init_carry=init_carry,
    reader=reader,
    hold=hold,
    backends={
        "reference": loop(step, reader, frozenset({"A"})),
        "chunked": run,
        "triton": TritonBackend(_triton),
    },
    constants=frozenset({"A"}),
    transition=transition,
    attention=attention,
)

__all__ = ["SELECTIVE", "SelectiveCarry", "SelectiveSignals"]
