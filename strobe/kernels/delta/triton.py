"""The `triton` backend of `delta`: the chunk kernel of `strobe.kernels.triton_matrix`."""

from collections.abc import Sequence

from torch import Tensor

from strobe.kernels.delta.reference import DeltaCarry, DeltaSignals
from strobe.kernels.edits import EditsAt
from strobe.kernels.scan import Segment
from strobe.kernels.triton_matrix import adapter
from strobe.kernels.triton_matrix.adapter import refusal, takes

__all__ = ["refusal", "run", "takes"]


def run(
    signals: DeltaSignals, carry: DeltaCarry, positions: list[int], readers: Tensor | None, edits: Sequence[EditsAt]
) -> Segment:
    """See `strobe.kernels.scan.DeviceBackend`."""
    return adapter.run(2 if signals.a is not None else 1, signals, carry, positions, readers, edits)
