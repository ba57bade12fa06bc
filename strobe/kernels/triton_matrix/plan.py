"""Where chunks begin, what is looked at and edited in each, and the static table of tile sizes.

No autotuning: it needs a GPU at hand, and the table is what was compiled and inspected ahead of time.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

LARGEST_KEY = 256


class Tiles(NamedTuple):
    """Tile of one kernel: value channels that a program holds, its warps, and the stages of its software pipeline."""

    block_value: int
    warps: int
    stages: int


@dataclass(frozen=True)
class Plan:
    """Chunk length and the tiles of the four kernels, for one rank, kind of decay and head size."""

    chunk: int
    inverse: Tiles
    scan: Tiles
    carry_gradient: Tiles
    input_gradient: Tiles


def plan(rank: int, channel: bool, key: int, value: int, dtype: torch.dtype, capability: int = 90) -> Plan:
    """The plan for `rank` (0, 1, 2), decay per key `channel` or per head, head sizes `key` and `value`, the signals'
    `dtype`, and the compute capability (90 for 9.0 and later).

    Chosen from what compiling for sm_90 in bfloat16 left in registers (chunks of 16, 32 and 64, 32 and 64 value
    channels, 4 and 8 warps); in float32, whose products keep two parts of each operand, for both capabilities (chunks
    of 16, 16 and 32 value channels). Not by time, as no GPU was at hand.
    """
    if dtype == torch.float32 and not channel and 32 < key <= 128:
        narrow = rank > 0 and capability < 90
        return _same(16, Tiles(min(power_of_two(value), 16 if narrow else 32), 4 if narrow else 8, 1))
    simple = rank == 0 and not channel and key <= 128
    chunk = 32 if simple and key > 32 else 16
    block = min(power_of_two(value), 64 if simple else 32)
    return _same(chunk, Tiles(block, 8 if key > 32 else 4, 2))


def _same(chunk: int, tiles: Tiles) -> Plan:
    """A plan whose scan and gradients have one tile."""
    return Plan(
        chunk=chunk,
        inverse=Tiles(0, 4, 1),
        scan=tiles,
        carry_gradient=tiles,
        input_gradient=tiles._replace(stages=1),
    )


def power_of_two(size: int) -> int:
    """The power of two that holds `size`, at least 16: the least that a tensor core takes."""
    return max(16, 1 << (size - 1).bit_length())


class Operands(NamedTuple):
    """The dtype that operands of products are rounded to, how float32 ones are multiplied, and how the inverse of a
    chunk's system is, once it has been found (with 22 bits: there rounding is amplified along the chunk)."""

    dtype: torch.dtype
    precision: str
    inverse: str


# How float32 is multiplied, by what torch.set_float32_matmul_precision asks for; in Triton's words. Three TF32 products
# carry 22 bits. Exact float32 ("ieee") is not among them: without tensor cores every kernel spilled kilobytes a thread.
_PRECISION = {"highest": "tf32x3", "high": "tf32", "medium": "tf32"}


def operands(dtype: torch.dtype) -> Operands:
    """How signals of `dtype` are multiplied; sums are float32.

    float16 becomes TF32, which has its mantissa and the exponents of float32: a carry may be larger than 65504.
    """
    if dtype == torch.bfloat16:
        return Operands(torch.bfloat16, "ieee", "tf32")
    if dtype == torch.float16:
        return Operands(torch.float32, "tf32", "tf32")
    return Operands(torch.float32, _PRECISION[torch.get_float32_matmul_precision()], "tf32x3")


class Chunks(NamedTuple):
    """Chunks of one sequence. `cuts` holds first and one after last token of each, [n_chunks, 2]; None where every
    chunk but the last is full."""

    n_chunks: int
    cuts: list[tuple[int, int]] | None


def chunks(time: int, chunk: int, ends: list[int]) -> Chunks:
    """Chunks of at most `chunk` tokens, of which one ends with each token in `ends`."""
    if not ends:
        return Chunks(-(-time // chunk), None)
    cuts, start = [], 0
    for stop in sorted({e + 1 for e in ends} | {time}):
        cuts.extend((at, min(at + chunk, stop)) for at in range(start, stop, chunk))
        start = stop
    return Chunks(len(cuts), cuts)


def looks(layout: Chunks, chunk: int, time: int, positions: list[int], edits: list[int]) -> list[int]:
    """For each chunk: captured positions inside it (from, to), the capture at its end (-1: none), edits at its end
    (from, to); five numbers a chunk, then the captured positions. `positions` and `edits` are ascending."""
    table: list[int] = []
    bounds = layout.cuts or [(i * chunk, min((i + 1) * chunk, time)) for i in range(layout.n_chunks)]
    for start, stop in bounds:
        low, high = bisect_left(positions, start), bisect_left(positions, stop)
        at_end = high - 1 if high > low and positions[high - 1] == stop - 1 else -1
        inside = high - 1 if at_end >= 0 else high
        table += [low, inside, at_end, bisect_left(edits, stop - 1), bisect_left(edits, stop)]
    return table + positions


def as_table(numbers: list[int], device: torch.device) -> Tensor:
    """`numbers` as int32 on `device`."""
    return torch.tensor(numbers, dtype=torch.int32, device=device)
