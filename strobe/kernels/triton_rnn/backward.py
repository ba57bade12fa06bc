"""The backward kernel: the gradient of the carry, backwards over tokens, and those of each token's inputs on the way.

At token t the gradient of the carry that crosses to t + 1 arrives; a capture at t shows that carry, the edits at t made
it from the one that was read, and the step made that. Gradients of R and b' are sums over tokens: one product after it.
"""

from typing import no_type_check

import triton
import triton.language as tl

from strobe.kernels.triton_matrix.algebra import dot
from strobe.kernels.triton_rnn.cell import (
    blocks,
    edited_field_gradient,
    held_or_read,
    load_planes,
    place,
    step_gradient,
    store_planes,
)
from strobe.kernels.triton_rnn.pieces import over_all_gates


@triton.jit
@no_type_check
def through_weights(
    total, d, R, w, gate, head, HEADS: tl.constexpr, dims, DIM: tl.constexpr,
    HELD: tl.constexpr, PIECE: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`total` and R^T d of one gate, [rows, dim], which with PIECE it has already; `w` is its block where held."""
    if PIECE == 0:
        total += dot(d, held_or_read(w, R, gate, head, HEADS, dims, DIM, HELD), OPERAND, PRECISION)
    return total


@triton.jit
@no_type_check
def backward_kernel(
    R, MASK, FIRST, VALUES, KINDS, EDITED, POSITIONS, CARRIES, SAVED, D_READ, D_LAST, D_CAPTURED,
    D_PRE, D_RECURRENT, D_FIRST,
    batch, time, n_captured, n_edits,
    CELL: tl.constexpr, GATES: tl.constexpr, FIELDS: tl.constexpr, KEPT: tl.constexpr,
    HEADS: tl.constexpr, DIM: tl.constexpr,
    MASKED: tl.constexpr, CAPTURE: tl.constexpr, EDIT: tl.constexpr,
    HELD: tl.constexpr, PIECE: tl.constexpr, STAGES: tl.constexpr, BLOCK_BATCH: tl.constexpr, BLOCK_DIM: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """D_PRE, the gradient of W x + b; D_RECURRENT, that of R h + b', for the GRU alone, elsewhere it is the same;
    D_FIRST. Grid and tables as the forward kernel's, but R is not transposed."""
    rows = tl.program_id(0) * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    head = tl.program_id(1)
    dims = tl.arange(0, BLOCK_DIM)
    ok = (rows < batch)[:, None] & (dims < DIM)[None, :]
    first_at = place(rows, 0, 1, 0, FIELDS, head, HEADS, dims, DIM)
    PLANE: tl.constexpr = HEADS * DIM
    d_h, d_c, d_n, d_m = load_planes(D_LAST, first_at, ok, PLANE, FIELDS, 0)
    w0, w1, w2, w3 = d_h, d_h, d_h, d_h
    if HELD:
        w0, w1, w2, w3 = blocks(R, head, HEADS, dims, DIM, GATES)
    looked, e = n_captured - 1, n_edits - 1
    next_look, next_edit = -1, -1
    if CAPTURE:
        next_look = tl.load(POSITIONS + 1 + looked)
    if EDIT:
        next_edit = tl.load(EDITED + 1 + e)

    for back in range(time):
        t = time - 1 - back
        if CAPTURE:  # noqa: SIM102 - the outer one is decided when compiling
            if next_look == t:
                at = place(rows, looked, n_captured, 0, FIELDS, head, HEADS, dims, DIM)
                at_h, at_c, at_n, at_m = load_planes(D_CAPTURED, at, ok, PLANE, FIELDS, 0)
                d_h += at_h
                if FIELDS > 1:
                    d_c += at_c
                if FIELDS > 2:
                    d_n += at_n
                    d_m += at_m
                looked -= 1
                next_look = tl.load(POSITIONS + 1 + looked)
        if EDIT:
            while next_edit == t:
                at = (e * FIELDS * HEADS + head) * DIM + dims
                value = tl.load(VALUES + place(e * batch + rows, 0, 1, 0, 1, head, HEADS, dims, DIM), mask=ok, other=0)
                d_h = edited_field_gradient(d_h, value, KINDS, at, dims, DIM)
                if FIELDS > 1:
                    d_c = edited_field_gradient(d_c, value, KINDS, at + PLANE, dims, DIM)
                if FIELDS > 2:
                    d_n = edited_field_gradient(d_n, value, KINDS, at + 2 * PLANE, dims, DIM)
                    d_m = edited_field_gradient(d_m, value, KINDS, at + 3 * PLANE, dims, DIM)
                e -= 1
                next_edit = tl.load(EDITED + 1 + e)
        d_h += tl.load(D_READ + place(rows, t, time, 0, 1, head, HEADS, dims, DIM), mask=ok, other=0)

        # The carry before token t; before the first token it has a place of its own.
        h, c, n, m = d_h, d_h, d_h, d_h
        if t > 0:
            at = place(rows, t - 1, time, 0, FIELDS, head, HEADS, dims, DIM)
            h, c, n, m = load_planes(CARRIES, at, ok, PLANE, FIELDS, 1)
        else:
            h, c, n, m = load_planes(FIRST, first_at, ok, PLANE, FIELDS, 1)
        at = place(rows, t, time, 0, KEPT, head, HEADS, dims, DIM)
        s0, s1, s2, s3 = load_planes(SAVED, at, ok, PLANE, KEPT, 0)
        d_0, d_1, d_2, d_3, d_r2, new_h, new_c, new_n, new_m = step_gradient(
            d_h, d_c, d_n, d_m, h, c, n, m, s0, s1, s2, s3, CELL
        )
        if MASKED:
            real = tl.load(MASK + rows.to(tl.int64) * time + t, mask=rows < batch, other=0)[:, None] != 0
            d_0, d_1, d_2 = tl.where(real, d_0, 0.0), tl.where(real, d_1, 0.0), tl.where(real, d_2, 0.0)
            d_3, d_r2 = tl.where(real, d_3, 0.0), tl.where(real, d_r2, 0.0)
            new_h, new_c = tl.where(real, new_h, d_h), tl.where(real, new_c, d_c)
            new_n, new_m = tl.where(real, new_n, d_n), tl.where(real, new_m, d_m)
        at = place(rows, t, time, 0, GATES, head, HEADS, dims, DIM)
        if PIECE > 0:
            new_h += over_all_gates(
                d_0, d_1, d_r2, d_3, R, head, HEADS, dims, DIM, GATES, PIECE, STAGES, OPERAND, PRECISION
            )
        tl.store(D_PRE + at, d_0, mask=ok)
        new_h = through_weights(new_h, d_0, R, w0, 0, head, HEADS, dims, DIM, HELD, PIECE, OPERAND, PRECISION)
        if GATES > 1:
            tl.store(D_PRE + at + HEADS * DIM, d_1, mask=ok)
            tl.store(D_PRE + at + 2 * HEADS * DIM, d_2, mask=ok)
            new_h = through_weights(new_h, d_1, R, w1, 1, head, HEADS, dims, DIM, HELD, PIECE, OPERAND, PRECISION)
            new_h = through_weights(new_h, d_r2, R, w2, 2, head, HEADS, dims, DIM, HELD, PIECE, OPERAND, PRECISION)
        if GATES > 3:
            tl.store(D_PRE + at + 3 * HEADS * DIM, d_3, mask=ok)
            new_h = through_weights(new_h, d_3, R, w3, 3, head, HEADS, dims, DIM, HELD, PIECE, OPERAND, PRECISION)
        if CELL == 1:
            tl.store(D_RECURRENT + at, d_0, mask=ok)
            tl.store(D_RECURRENT + at + HEADS * DIM, d_1, mask=ok)
            tl.store(D_RECURRENT + at + 2 * HEADS * DIM, d_r2, mask=ok)
        d_h = tl.where(ok, new_h, 0.0)
        if FIELDS > 1:
            d_c = tl.where(ok, new_c, 0.0)
        if FIELDS > 2:
            d_n, d_m = tl.where(ok, new_n, 0.0), tl.where(ok, new_m, 0.0)
    store_planes(D_FIRST, first_at, d_h, d_c, d_n, d_m, ok, PLANE, FIELDS)
