"""RWKV-4's time mixing: a decaying softmax over the past, carried as numerator, denominator and running maximum."""

from types import ModuleType

from strobe.kernels.reference import loop
from strobe.kernels.scan import Family
from strobe.kernels.triton.backend import TritonBackend
from strobe.kernels.wkv.chunked import run
from strobe.kernels.wkv.reference import WKVCarry, WKVSignals, attention, hold, init_carry, reader, step


def _triton() -> ModuleType:
    from strobe.kernels.wkv import triton

    return triton


WKV = Family(
    name="wkv",
    step=step,
    init_carry=init_carry,
    reader=reader,
    hold=hold,
    backends={
        "reference": loop(step, reader, frozenset({"w", "u"})),
        "chunked": run,
        "triton": TritonBackend(_triton),
    },
    constants=frozenset({"w", "u"}),
    attention=attention,
)

__all__ = ["WKV", "WKVCarry", "WKVSignals"]
