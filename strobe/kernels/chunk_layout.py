"""How a chunked scan lays tokens into chunks, so that the carry at every edit is one that crosses from chunk to chunk.

Time is cut into pieces, each ending at an edit (the last at the end), and every piece starts a chunk. Its last chunk is
filled up with zeros: a token of zeros writes nothing and, its log decay being zero, forgets nothing, so the carry after
a piece is the carry after its last chunk. One pass over all chunks then honours all edits, where a scan that is cut
pays for every operation anew at each of them.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce

import torch
from torch import Tensor

from strobe.kernels.edits import Edit, EditsAt, apply_edit
from strobe.kernels.scan import Carry


class Layout:
    """`time` tokens in chunks of a power of two, at most `longest`, with the carry at `edits` between chunks.

    `chunk` is their length and `edits` {chunk: the edits of the carry after it}.
    """

    def __init__(self, time: int, longest: int, edits: Sequence[EditsAt] = ()) -> None:
        ends = sorted({*(here.position for here in edits), time - 1})
        self._pieces = [(before + 1, end + 1) for before, end in zip([-1, *ends[:-1]], ends, strict=True)]
        widest = max(stop - start for start, stop in self._pieces)
        self.chunk = min(longest, 1 << (widest - 1).bit_length())
        self._first, chunks = [], 0  # each piece's first chunk
        for start, stop in self._pieces:
            self._first.append(chunks)
            chunks += -((start - stop) // self.chunk)
        self._after = dict(zip(ends, [first - 1 for first in [*self._first[1:], chunks]], strict=True))
        self.edits = {self._after[here.position]: here.edits for here in edits}

    def to_chunks(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """[batch, time, ...] as [batch, n, chunk, ...] in `dtype`."""
        parts = []
        for start, stop in self._pieces:
            parts.append(x[:, start:stop])
            if missing := (start - stop) % self.chunk:
                # Not `F.pad`, which on a CPU fills the whole result first: half as fast for values.
                parts.append(x.new_zeros(x.shape[0], missing, *x.shape[2:]))
        x = torch.cat(parts, 1) if len(parts) > 1 else x
        return x.to(dtype).unflatten(1, (-1, self.chunk))

    def to_time(self, x: Tensor) -> Tensor:
        """[batch, n, chunk, ...] as [batch, time, ...], without the filling."""
        x = x.flatten(1, 2)
        parts = []
        for (start, stop), first in zip(self._pieces, self._first, strict=True):
            place = first * self.chunk
            parts.append(x[:, place : place + stop - start])
        return torch.cat(parts, 1) if len(parts) > 1 else parts[0]

    def places(self, positions: Sequence[int]) -> list[int]:
        """Where the tokens at `positions`, ascending, lie among the places of all chunks."""
        places, piece = [], 0
        for position in positions:
            while position >= self._pieces[piece][1]:
                piece += 1
            places.append(self._first[piece] * self.chunk + position - self._pieces[piece][0])
        return places

    def crossings(self, positions: Sequence[int]) -> list[int | None]:
        """Of each of `positions` the chunk after which its carry crosses to the next one; None inside a chunk."""
        last = self.chunk - 1
        return [
            self._after.get(position, place // self.chunk if place % self.chunk == last else None)
            for position, place in zip(positions, self.places(positions), strict=True)
        ]

    def changes(
        self, to_carry: Callable[[Tensor], Carry], to_memory: Callable[[Carry], Tensor]
    ) -> dict[int, Callable[[Tensor], Tensor]]:
        """By chunk, what the edits after it make of the memory S there. `to_carry` and back: from an S as the scan has
        it to the family's carry."""

        def change(edits: Sequence[Edit], S: Tensor) -> Tensor:
            return to_memory(reduce(lambda carry, edit: apply_edit(edit, carry), edits, to_carry(S)))

        return {chunk: partial(change, edits) for chunk, edits in self.edits.items()}
