"""The `triton` backend of `decay`: the chunk kernel of `strobe.kernels.triton_matrix`."""

from collections.abc import Sequence

from torch import Tensor

from strobe.kernels.decay.reference import DecayCarry, DecaySignals
from strobe.kernels.edits import EditsAt
from strobe.kernels.scan import Segment
from strobe.kernels.triton_matrix import adapter
from strobe.kernels.triton_matrix.adapter import refusal, takes

__all__ = ["refusal", "run", "takes"]


def run(
    signals: DecaySignals, carry: DecayCarry, positions: list[int], readers: Tensor | None, edits: Sequence[EditsAt]
) -> Segment:
    """See `strobe.kernels.scan.DeviceBackend`."""
    return adapter.run(0, signals, carry, positions, readers, edits)
