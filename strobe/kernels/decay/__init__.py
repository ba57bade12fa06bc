"""The scan family `decay`: matrix state, decay per head or per key channel (RetNet, Mamba-2, GLA, mLSTM, ...)."""

from types import ModuleType

from strobe.kernels.decay.chunked import attention, chunked
from strobe.kernels.decay.reference import (
    DecayCarry,
    DecaySignals,
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

__all__ = ["DECAY", "DecayCarry", "DecaySignals", "random_signals"]


def _triton() -> ModuleType:
    from strobe.kernels.decay import triton

    return triton


DECAY = Family(
    name="decay",
    step=step,
    init_carry=init_carry,
    reader=reader,
    hold=hold,
    backends={"reference": reference, "chunked": chunked, "triton": TritonBackend(_triton)},
    transition=transition,
    attention=attention,
)
