"""The scan family `delta`: matrix state, decay and a low-rank correction (Gated DeltaNet, KDA, RWKV-7, ...)."""

from types import ModuleType

from strobe.kernels.delta.chunked import attention, chunked
from strobe.kernels.delta.reference import (
    DeltaCarry,
    DeltaSignals,
    hold,
    init_carry,
    random_signals,
    reader,
    reference,
    step,
    transition,
)
from strobe.kernels.scan import Family
from strobe.kernels.triton.backend import TritonBackend

__all__ = ["DELTA", "DeltaCarry", "DeltaSignals", "random_signals"]


def _triton() -> ModuleType:
    from strobe.kernels.delta import triton

    return triton


DELTA = Family(
    name="delta",
    step=step,
    init_carry=init_carry,
    reader=reader,
    hold=hold,
    backends={"reference": reference, "chunked": chunked, "triton": TritonBackend(_triton)},
    transition=transition,
    attention=attention,
)
