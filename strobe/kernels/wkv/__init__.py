"""RWKV-4's time mixing: a decaying softmax over the past, carried as numerator, denominator and running maximum."""

from strobe.kernels.reference import loop
from strobe.kernels.scan import Family
from strobe.kernels.wkv.chunked import run
from strobe.kernels.wkv.reference import WKVCarry, WKVSignals, attention, hold, init_carry, reader, step

WKV = Family(
    name="wkv",
    step=step,
    init_carry=init_carry,
    reader=reader,
    hold=hold,
    backends={"reference": loop(step, reader, frozenset({"w", "u"})), "chunked": run},
    constants=frozenset({"w", "u"}),
    attention=attention,
)

__all__ = ["WKV", "WKVCarry", "WKVSignals"]
