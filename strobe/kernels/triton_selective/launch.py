"""Launching both kernels: grids, tables, buffers; the static table of tile sizes. Shapes are those of `operator`."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from strobe.kernels.triton.device import launch
from strobe.kernels.triton.segments import count, segments

LARGEST_STATE = 256
# Tokens between two states kept for the way back, of which the room for a segment's states grows as well.
LONGEST = 64
# Entries of h that a warp holds. By what compiling left in registers, not by time, as no GPU was at hand.
_ENTRIES = 512


class Inputs(NamedTuple):
    """What is scanned; the arguments of `strobe::selective_scan` of the same names."""

    x: Tensor
    delta: Tensor
    B: Tensor
    C: Tensor
    A: Tensor
    h: Tensor
    readers: Tensor | None

    def contiguous(self) -> "Inputs":
        """With every tensor laid out as its shape says."""
        return Inputs(*(None if x is None else x.contiguous() for x in self))  # pyright: ignore[reportArgumentType]


class Asked(NamedTuple):
    """What is asked on the way; the arguments of `strobe::selective_scan` of the same names."""

    values: Tensor | None
    kinds: Tensor | None
    edited: list[int]
    positions: list[int]
    keep: bool


def table_of(time: int, asked: Asked) -> list[int]:
    """The segments of the forward pass, which are those of the backward pass."""
    return segments(time, LONGEST if asked.keep else None, asked.positions, asked.edited)


def blocks(state: int) -> dict[str, int]:
    """Tile of a program of one warp: channels and state, powers of two."""
    size = 1 << (state - 1).bit_length()
    return {"BLOCK_CHANNELS": max(2, _ENTRIES // size), "BLOCK_STATE": size}


def unroll(time: int, n_segments: int) -> int:
    """Tokens loaded together: fewer than a segment has, or most of the work is for tokens that are not there."""
    return 8 if time >= 8 * n_segments else 1


def empty_outputs(inputs: Inputs, asked: Asked) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Buffers of what `forward` returns, not filled."""
    batch, time, channels = inputs.x.shape
    n_segments = len(table_of(time, asked)) // 5

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=inputs.x.device)

    carry = inputs.A.shape
    return (
        empty(batch, time, channels),
        empty(batch, *carry),
        empty(batch, len(asked.positions), *carry),
        empty(batch, time, 0 if inputs.readers is None else inputs.readers.shape[0], channels),
        empty(batch, n_segments, *carry) if asked.keep else empty(0),
    )


def forward(inputs: Inputs, asked: Asked) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`strobe::selective_scan` on the device."""
    from strobe.kernels.triton_selective.forward import scan_kernel

    outputs = read, last, captured, answers, starts = empty_outputs(inputs, asked)
    if not inputs.x.numel() or not inputs.A.numel():
        for x in (read, answers):
            x.zero_()
        return outputs
    inputs = inputs.contiguous()
    table = table_of(inputs.x.shape[1], asked)
    arguments, grid = _shared(inputs, table, len(asked.positions))
    launch(
        scan_kernel,
        grid,
        inputs.x.device,
        **arguments,
        H_FIRST=inputs.h,
        VALUES=None if asked.values is None else asked.values.contiguous(),
        KINDS=None if asked.kinds is None else asked.kinds.contiguous(),
        Y=read,
        H_LAST=last,
        CAPTURED=captured,
        ANSWERS=answers,
        STARTS=starts,
        EDIT=bool(asked.edited),
        KEEP=asked.keep,
        UNROLL=unroll(inputs.x.shape[1], len(table) // 5),
    )
    return outputs


def backward(inputs: Inputs, starts: Tensor, positions: list[int], given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """`strobe::selective_scan_backward` on the device; `given` are the gradients of read, carry, captures, answers."""
    from strobe.kernels.triton_selective.backward import gradient_kernel

    targets, (d_read, d_last, d_captured, d_answers) = inputs, given
    if not inputs.x.numel() or not inputs.A.numel():
        return tuple(inputs.x.new_empty(0) if x is None else torch.zeros_like(x) for x in targets)
    inputs = inputs.contiguous()
    (batch, time, channels), state = inputs.x.shape, inputs.A.shape[1]
    table = table_of(time, Asked(None, None, [], positions, True))
    arguments, grid = _shared(inputs, table, len(positions))
    n_readers = d_answers.shape[2]

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=inputs.x.device)

    d_x, d_delta = empty(batch, time, channels), empty(batch, time, channels)
    d_B, d_C = empty(grid[1], batch, time, state), empty(grid[1], batch, time, state)
    d_A, d_h = empty(batch, channels, state), empty(batch, channels, state)
    d_readers = torch.zeros(batch, n_readers, channels, state, device=inputs.x.device)
    launch(
        gradient_kernel,
        grid,
        inputs.x.device,
        **arguments,
        STARTS=starts,
        D_Y=d_read.contiguous(),
        D_LAST=d_last.contiguous(),
        D_CAPTURED=d_captured.contiguous(),
        D_ANSWERS=d_answers.contiguous(),
        D_X=d_x,
        D_DELTA=d_delta,
        D_B=d_B,
        D_C=d_C,
        D_A=d_A,
        D_FIRST=d_h,
        D_READERS=d_readers,
        STATES=empty(batch, LONGEST, channels, state),
        LONGEST=LONGEST,
    )
    d_u = d_readers.sum(0)
    if inputs.readers is not None and inputs.readers.shape[1] == 1:
        d_u = d_u.sum(1, keepdim=True)
    found = (d_x, d_delta, d_B.sum(0), d_C.sum(0), d_A.sum(0), d_h, d_u)
    return tuple(inputs.x.new_empty(0) if x is None else d.to(x.dtype) for d, x in zip(found, targets, strict=True))


def _shared(inputs: Inputs, table: list[int], n_captured: int) -> tuple[dict[str, Any], tuple[int, int]]:
    """Arguments that both kernels take, and their grid."""
    (batch, time, channels), state = inputs.x.shape, inputs.A.shape[1]
    readers = inputs.readers
    tile = blocks(state)
    arguments = {
        "X": inputs.x,
        "DELTA": inputs.delta,
        "B": inputs.B,
        "C": inputs.C,
        "A": inputs.A,
        "READERS": readers,
        "SEGMENTS": torch.tensor(table, dtype=torch.int32, device=inputs.x.device),
        "time": time,
        "n_segments": count(len(table) // 5),
        "n_readers": count(0 if readers is None else readers.shape[0]),
        "reader_stride": 0 if readers is None or readers.shape[1] == 1 else state,
        "n_captured": n_captured,
        "CHANNELS": channels,
        "STATE": state,
        "CAPTURE": n_captured > 0,
        "READ": readers is not None,
        **tile,
        "num_warps": 1,
        "num_stages": 1,
    }
    return arguments, (batch, -(-channels // tile["BLOCK_CHANNELS"]))
