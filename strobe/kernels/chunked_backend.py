"""The backend "chunked" of the matrix-state families, which honours edits itself: one pass, chunks ending at edits.

All chunks are worked out at once, whatever their number. Stretches of them that fit a cache were tried (512 and 2,048
tokens of the benchmarks' Mamba-2, on one CPU thread) and are no faster.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from strobe.kernels.denormals import flushed
from strobe.kernels.edits import EditsAt
from strobe.kernels.scan import Backend, Carry, Segment, Signals

# One pass takes the memory of its chunks, of which every edit may add one. So at most this many edits for each chunk of
# the scan without them, or this many in all: one pass then takes four times the memory at most, or little.
_EDITS_A_CHUNK, _EDITS_AT_LEAST = 3, 16


@dataclass(frozen=True)
class ChunkedBackend:
    """`run` takes what a `Backend` takes, and edits; its chunks have `chunk` tokens at most. Of one token there is
    nothing to work out at once: `step_by_step`, the definition, runs."""

    run: Callable[[Signals, Carry, list[int], Tensor | None, Sequence[EditsAt]], Segment]
    step_by_step: Backend
    chunk: int

    def __call__(self, signals: Signals, carry: Carry, positions: list[int], readers: Tensor | None) -> Segment:
        if signals.v.shape[1] == 1:
            return self.step_by_step(signals, carry, positions, readers)
        return self.with_edits(signals, carry, positions, readers, ())

    def inside(self, edits: Sequence[EditsAt], signals: Signals, carry: Carry) -> Sequence[EditsAt]:
        """All edits, but for those at which many are cut into passes of a bounded memory. That is faster than a cut at
        each, at one edit as at one for every token."""
        chunks = -(-signals.v.shape[1] // self.chunk)
        together = max(_EDITS_A_CHUNK * chunks, _EDITS_AT_LEAST)
        return [here for n, here in enumerate(edits, 1) if n % (together + 1)]

    def with_edits(
        self, signals: Signals, carry: Carry, positions: list[int], readers: Tensor | None, edits: Sequence[EditsAt]
    ) -> Segment:
        """As a call, with `edits` on the way. Never under autocast; numbers too small for their dtype are zero."""
        with flushed(signals.v.device), torch.autocast(signals.v.device.type, enabled=False):
            return self.run(signals, carry, positions, readers, edits)
