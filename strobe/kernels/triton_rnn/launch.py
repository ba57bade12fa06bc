"""Launching the two kernels: buffers, tables, and the static table of tiles. Shapes are those of `operator`."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from strobe.kernels.triton.device import interpreting
from strobe.kernels.triton.device import launch as launch_on
from strobe.kernels.triton_matrix.plan import as_table, operands, power_of_two

LARGEST_DIM = 128


class Cell(NamedTuple):
    """`code`, its number in the kernels; how many gates, fields of the carry and values saved for each token it has."""

    code: int
    gates: int
    fields: int
    saved: int


CELLS = {"elman": Cell(0, 1, 1, 1), "gru": Cell(1, 3, 1, 4), "lstm": Cell(2, 4, 2, 4), "slstm": Cell(3, 4, 4, 4)}


class Tiles(NamedTuple):
    """Rows that a program holds, its warps, whether it holds R or reads it again (from the cache) at each token, and in
    that case how many rows of a block it reads at once (0: all of them) and how many such pieces are on their way."""

    block_batch: int
    warps: int
    held: bool
    piece: int = 0
    stages: int = 1


class Inputs(NamedTuple):
    """What is scanned; the arguments of `strobe::rnn_scan` of the same names."""

    cell: str
    pre: Tensor
    R: Tensor
    b: Tensor | None
    mask: Tensor | None
    first: Tensor


class Asked(NamedTuple):
    """What is asked on the way; the arguments of `strobe::rnn_scan` of the same names."""

    values: Tensor | None
    kinds: Tensor | None
    edited: list[int]
    positions: list[int]
    keep: bool


def tiles(cell: str, dim: int, dtype: torch.dtype) -> Tiles:
    """Tiles for a head of `dim` channels and signals of `dtype`.

    Chosen from what compiling for sm_90 and sm_80 left in registers; not by time, as no GPU was at hand. 16 rows are
    the least that a tensor core takes. R is held where its blocks take at most 64 KiB. Where they do not and one of
    them alone takes that much, as in float32 from 65 channels on, it is read in pieces: a step then waits for all of R
    out of the cache, up to 256 KiB, and is slower than one of bfloat16, which reads half of it.
    """
    width = power_of_two(dim)
    half = operands(dtype).dtype == torch.bfloat16
    size = CELLS[cell].gates * width * width * (2 if half else 4)
    held = size <= 64 * 1024
    if not (half or held) and width > 64:
        return Tiles(16, 8, held, piece=16, stages=3)
    return Tiles(16, 4 if half and width <= 64 else 8 if half or width <= 64 else 16, held)


def empty_outputs(inputs: Inputs, asked: Asked) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Buffers of what `forward` returns, not filled."""
    batch, time, _, heads, dim = inputs.pre.shape
    cell = CELLS[inputs.cell]

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=inputs.pre.device)

    return (
        empty(batch, time, heads, dim),
        empty(batch, cell.fields, heads, dim),
        empty(batch, len(asked.positions), cell.fields, heads, dim),
        empty(*((batch, time, cell.fields, heads, dim) if asked.keep else (0,))),
        empty(*((batch, time, cell.saved, heads, dim) if asked.keep else (0,))),
    )


def forward(inputs: Inputs, asked: Asked) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`strobe::rnn_scan` on the device."""
    from strobe.kernels.triton_rnn.forward import forward_kernel

    outputs = empty_outputs(inputs, asked)
    read, last, captured, carries, saved = outputs
    if not inputs.pre.numel():
        last.copy_(inputs.first)
        captured.copy_(inputs.first.unsqueeze(1).expand_as(captured))
        return outputs
    shared, grid, warps = _shared(inputs, asked)
    _launch(
        forward_kernel,
        grid,
        warps,
        PRE=inputs.pre.contiguous(),
        R=inputs.R.transpose(-1, -2).contiguous(),
        BIAS=None if inputs.b is None else inputs.b.contiguous(),
        READ=read,
        LAST=last,
        CAPTURED=captured,
        CARRIES=carries,
        SAVED=saved,
        BIASED=inputs.b is not None,
        KEEP=asked.keep,
        **shared,
    )
    return outputs


def backward(
    inputs: Inputs,
    asked: Asked,
    carries: Tensor,
    saved: Tensor,
    d_read: Tensor,
    d_last: Tensor,
    d_captured: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`strobe::rnn_scan_backward` on the device."""
    from strobe.kernels.triton_rnn.backward import backward_kernel

    pre, R, b, first = inputs.pre, inputs.R, inputs.b, inputs.first
    if not pre.numel():
        d_b = R.new_empty(0) if b is None else torch.zeros_like(b)
        d_first = (d_last + d_captured.sum(1)).to(first.dtype)
        return torch.zeros_like(pre), torch.zeros_like(R), d_b, d_first
    d_pre = torch.empty(pre.shape, dtype=torch.float32, device=pre.device)
    d_recurrent = torch.empty_like(d_pre) if inputs.cell == "gru" else d_pre
    d_first = torch.empty(first.shape, dtype=torch.float32, device=pre.device)
    shared, grid, warps = _shared(inputs, asked)
    _launch(
        backward_kernel,
        grid,
        warps,
        R=R.contiguous(),
        CARRIES=carries,
        SAVED=saved,
        D_READ=d_read.contiguous(),
        D_LAST=d_last.contiguous(),
        D_CAPTURED=d_captured.contiguous(),
        D_PRE=d_pre,
        D_RECURRENT=d_recurrent if inputs.cell == "gru" else None,
        D_FIRST=d_first,
        n_edits=len(asked.edited),
        **shared,
    )
    before = torch.cat([first[:, :1].to(carries.dtype), carries[:, :-1, 0]], 1)
    d_R = torch.einsum("btghi,bthj->ghij", d_recurrent, before).contiguous()
    d_b = R.new_empty(0) if b is None else d_recurrent.sum((0, 1)).to(b.dtype)
    return d_pre.to(pre.dtype), d_R.to(R.dtype), d_b, d_first.to(first.dtype)


def constants(cell: str, dim: int, dtype: torch.dtype) -> dict[str, Any]:
    """The compile-time arguments that both kernels share, but for what is asked and the number of heads."""
    import triton.language as tl

    how, it, tile = operands(dtype), CELLS[cell], tiles(cell, dim, dtype)
    return {
        "CELL": it.code,
        "GATES": it.gates,
        "FIELDS": it.fields,
        "KEPT": it.saved,
        "DIM": dim,
        "HELD": tile.held,
        "PIECE": tile.piece,
        "STAGES": tile.stages,
        "BLOCK_BATCH": tile.block_batch,
        "BLOCK_DIM": power_of_two(dim),
        "OPERAND": tl.bfloat16 if how.dtype == torch.bfloat16 else tl.float32,
        "PRECISION": how.precision,
    }


def _shared(inputs: Inputs, asked: Asked) -> tuple[dict[str, Any], tuple[int, int], int]:
    """Arguments that both kernels take, the grid, and the warps of a program."""
    batch, time, _, heads, dim = inputs.pre.shape
    tile = tiles(inputs.cell, dim, inputs.pre.dtype)
    device = inputs.pre.device
    shared = {
        "MASK": None if inputs.mask is None else inputs.mask.to(torch.int8).expand(batch, time).contiguous(),
        "FIRST": inputs.first.contiguous(),
        "VALUES": asked.values.contiguous() if asked.values is not None else None,
        "KINDS": asked.kinds.contiguous() if asked.kinds is not None else None,
        "EDITED": as_table([-1, *asked.edited, -1], device) if asked.edited else None,
        "POSITIONS": as_table([-1, *asked.positions, -1], device) if asked.positions else None,
        "batch": batch,
        "time": _count(time),
        "n_captured": len(asked.positions),
        "HEADS": heads,
        "MASKED": inputs.mask is not None,
        "CAPTURE": bool(asked.positions),
        "EDIT": bool(asked.edited),
        **constants(inputs.cell, dim, inputs.pre.dtype),
    }
    return shared, (-(-batch // tile.block_batch), heads), tile.warps


def _launch(kernel: Any, grid: tuple[int, int], warps: int, **arguments: Any) -> None:
    launch_on(kernel, grid, arguments["FIRST"].device, **arguments, num_warps=warps, num_stages=1)


def _count(number: int) -> Any:
    """How often a loop runs, as an argument: the interpreter of triton 3.6 loops over constants only."""
    from triton.language import constexpr

    return constexpr(number) if interpreting() else number
