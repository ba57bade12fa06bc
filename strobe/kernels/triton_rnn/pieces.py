"""Products with recurrent weights too wide to keep at hand: the block of a gate is read in pieces of its rows.

Where float32 or float16 (multiplied as TF32) heads have more than 64 channels, the blocks of all gates fit neither
registers nor shared memory. A loop over pieces of PIECE rows reads each of them from the cache while the one before is
multiplied, and needs no more room than two or three pieces. Its sums are those of one product.
"""

from typing import no_type_check

import triton
import triton.language as tl

from strobe.kernels.triton_matrix.algebra import dot


@triton.jit
@no_type_check
def columns(x, k, PIECE: tl.constexpr):
    """Columns k PIECE up to (k + 1) PIECE of x [rows, dim], for a `k` that is known only as the loop runs."""
    PIECES: tl.constexpr = x.shape[1] // PIECE
    parts = tl.reshape(x, (x.shape[0], PIECES, PIECE))
    here = tl.arange(0, PIECES)[None, :, None] == k
    return tl.sum(tl.where(here, parts, 0.0), 1)


@triton.jit
@no_type_check
def rows_of(R, gate, k, head, HEADS: tl.constexpr, dims, DIM: tl.constexpr, PIECE: tl.constexpr):
    """Rows k PIECE up to (k + 1) PIECE of one head's block of one gate, [PIECE, dim]; 0 past DIM."""
    rows = k * PIECE + tl.arange(0, PIECE)
    at = ((gate * HEADS + head) * DIM + rows[:, None]) * DIM + dims[None, :]
    return tl.load(R + at, mask=(rows < DIM)[:, None] & (dims < DIM)[None, :], other=0)


@triton.jit
@no_type_check
def of_every_gate(
    h, R, head, HEADS: tl.constexpr, dims, DIM: tl.constexpr, GATES: tl.constexpr, PIECE: tl.constexpr,
    STAGES: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Four tiles, h [rows, dim] times the block of each gate; those past GATES repeat the first."""
    r0 = tl.zeros_like(h)
    r1, r2, r3 = r0, r0, r0
    for k in tl.range(0, h.shape[1] // PIECE, num_stages=STAGES):
        x = columns(h, k, PIECE)
        r0 += dot(x, rows_of(R, 0, k, head, HEADS, dims, DIM, PIECE), OPERAND, PRECISION)
        if GATES > 1:
            r1 += dot(x, rows_of(R, 1, k, head, HEADS, dims, DIM, PIECE), OPERAND, PRECISION)
            r2 += dot(x, rows_of(R, 2, k, head, HEADS, dims, DIM, PIECE), OPERAND, PRECISION)
        if GATES > 3:
            r3 += dot(x, rows_of(R, 3, k, head, HEADS, dims, DIM, PIECE), OPERAND, PRECISION)
    return r0, r1, r2, r3


@triton.jit
@no_type_check
def over_all_gates(
    d_0, d_1, d_2, d_3, R, head, HEADS: tl.constexpr, dims, DIM: tl.constexpr, GATES: tl.constexpr,
    PIECE: tl.constexpr, STAGES: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The sum over gates of d [rows, dim] times the gate's block."""
    total = tl.zeros_like(d_0)
    for k in tl.range(0, d_0.shape[1] // PIECE, num_stages=STAGES):
        w = rows_of(R, 0, k, head, HEADS, dims, DIM, PIECE)
        total += dot(columns(d_0, k, PIECE), w, OPERAND, PRECISION)
        if GATES > 1:
            w = rows_of(R, 1, k, head, HEADS, dims, DIM, PIECE)
            total += dot(columns(d_1, k, PIECE), w, OPERAND, PRECISION)
            w = rows_of(R, 2, k, head, HEADS, dims, DIM, PIECE)
            total += dot(columns(d_2, k, PIECE), w, OPERAND, PRECISION)
        if GATES > 3:
            w = rows_of(R, 3, k, head, HEADS, dims, DIM, PIECE)
            total += dot(columns(d_3, k, PIECE), w, OPERAND, PRECISION)
    return total
