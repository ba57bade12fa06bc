"""The forward kernel: all tokens of some rows of one head, with captures and edits on the way."""

from typing import no_type_check

import triton
import triton.language as tl

from strobe.kernels.triton_matrix.algebra import dot
from strobe.kernels.triton_rnn.cell import (
    blocks,
    edited_field,
    held_or_read,
    load_planes,
    place,
    step,
    store_planes,
)
from strobe.kernels.triton_rnn.pieces import of_every_gate


@triton.jit
@no_type_check
def recurrent(
    h, R, p, BIAS, gate, head, HEADS: tl.constexpr, dims, DIM: tl.constexpr,
    BIASED: tl.constexpr, HELD: tl.constexpr, PIECE: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """R h + b' of one gate, [rows, dim]; `p` is R h where PIECE is set, else its transposed block where it is held."""
    r = p
    if PIECE == 0:
        r = dot(h, held_or_read(p, R, gate, head, HEADS, dims, DIM, HELD), OPERAND, PRECISION)
    if BIASED:
        r += tl.load(BIAS + (gate * HEADS + head) * DIM + dims, mask=dims < DIM, other=0).to(tl.float32)[None, :]
    return r


@triton.jit
@no_type_check
def forward_kernel(
    PRE, R, BIAS, MASK, FIRST, VALUES, KINDS, EDITED, POSITIONS,
    READ, LAST, CAPTURED, CARRIES, SAVED,
    batch, time, n_captured,
    CELL: tl.constexpr, GATES: tl.constexpr, FIELDS: tl.constexpr, KEPT: tl.constexpr,
    HEADS: tl.constexpr, DIM: tl.constexpr,
    BIASED: tl.constexpr, MASKED: tl.constexpr, CAPTURE: tl.constexpr, EDIT: tl.constexpr, KEEP: tl.constexpr,
    HELD: tl.constexpr, PIECE: tl.constexpr, STAGES: tl.constexpr, BLOCK_BATCH: tl.constexpr, BLOCK_DIM: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """READ (h of every token), LAST, CAPTURED; with KEEP also CARRIES (after its edits) and SAVED of every token.

    Grid (blocks of rows, HEADS). R is [GATES, HEADS, DIM, DIM] with each block transposed. EDITED and POSITIONS are
    ascending, between two -1.
    """
    rows = tl.program_id(0) * BLOCK_BATCH + tl.arange(0, BLOCK_BATCH)
    head = tl.program_id(1)
    dims = tl.arange(0, BLOCK_DIM)
    ok = (rows < batch)[:, None] & (dims < DIM)[None, :]
    PLANE: tl.constexpr = HEADS * DIM
    h, c, n, m = load_planes(FIRST, place(rows, 0, 1, 0, FIELDS, head, HEADS, dims, DIM), ok, PLANE, FIELDS, 1)
    w0, w1, w2, w3 = h, h, h, h
    if HELD:
        w0, w1, w2, w3 = blocks(R, head, HEADS, dims, DIM, GATES)
    looked, e = 0, 0
    next_look, next_edit = -1, -1
    if CAPTURE:
        next_look = tl.load(POSITIONS + 1)
    if EDIT:
        next_edit = tl.load(EDITED + 1)

    for t in range(time):
        p0, p1, p2, p3 = w0, w1, w2, w3
        if PIECE > 0:
            p0, p1, p2, p3 = of_every_gate(h, R, head, HEADS, dims, DIM, GATES, PIECE, STAGES, OPERAND, PRECISION)
        x0 = tl.load(PRE + place(rows, t, time, 0, GATES, head, HEADS, dims, DIM), mask=ok, other=0).to(tl.float32)
        r0 = recurrent(h, R, p0, BIAS, 0, head, HEADS, dims, DIM, BIASED, HELD, PIECE, OPERAND, PRECISION)
        x1, x2, x3, r1, r2, r3 = x0, x0, x0, r0, r0, r0
        if GATES > 1:
            x1 = tl.load(PRE + place(rows, t, time, 1, GATES, head, HEADS, dims, DIM), mask=ok, other=0).to(tl.float32)
            x2 = tl.load(PRE + place(rows, t, time, 2, GATES, head, HEADS, dims, DIM), mask=ok, other=0).to(tl.float32)
            r1 = recurrent(h, R, p1, BIAS, 1, head, HEADS, dims, DIM, BIASED, HELD, PIECE, OPERAND, PRECISION)
            r2 = recurrent(h, R, p2, BIAS, 2, head, HEADS, dims, DIM, BIASED, HELD, PIECE, OPERAND, PRECISION)
        if GATES > 3:
            x3 = tl.load(PRE + place(rows, t, time, 3, GATES, head, HEADS, dims, DIM), mask=ok, other=0).to(tl.float32)
            r3 = recurrent(h, R, p3, BIAS, 3, head, HEADS, dims, DIM, BIASED, HELD, PIECE, OPERAND, PRECISION)
        new_h, new_c, new_n, new_m, s0, s1, s2, s3 = step(h, c, n, m, x0, x1, x2, x3, r0, r1, r2, r3, CELL)
        if MASKED:
            real = tl.load(MASK + rows.to(tl.int64) * time + t, mask=rows < batch, other=0)[:, None] != 0
            new_h, new_c = tl.where(real, new_h, h), tl.where(real, new_c, c)
            new_n, new_m = tl.where(real, new_n, n), tl.where(real, new_m, m)
        # Past DIM a NaN times a weight of 0 is NaN, and would outlive an edit that takes the NaN out of h.
        h = tl.where(ok, new_h, 0.0)
        if FIELDS > 1:
            c = tl.where(ok, new_c, 0.0)
        if FIELDS > 2:
            n, m = tl.where(ok, new_n, 1.0), tl.where(ok, new_m, 0.0)
        tl.store(READ + place(rows, t, time, 0, 1, head, HEADS, dims, DIM), h, mask=ok)
        if KEEP:
            at = place(rows, t, time, 0, KEPT, head, HEADS, dims, DIM)
            store_planes(SAVED, at, s0, s1, s2, s3, ok, PLANE, KEPT)
        if EDIT:
            while next_edit == t:
                kinds = (e * FIELDS * HEADS + head) * DIM + dims
                value = tl.load(VALUES + place(e * batch + rows, 0, 1, 0, 1, head, HEADS, dims, DIM), mask=ok, other=0)
                h = edited_field(h, value, KINDS, kinds, dims, DIM)
                if FIELDS > 1:
                    c = edited_field(c, value, KINDS, kinds + PLANE, dims, DIM)
                if FIELDS > 2:
                    n = tl.where(ok, edited_field(n, value, KINDS, kinds + 2 * PLANE, dims, DIM), 1.0)
                    m = edited_field(m, value, KINDS, kinds + 3 * PLANE, dims, DIM)
                e += 1
                next_edit = tl.load(EDITED + 1 + e)
        if CAPTURE:  # noqa: SIM102 - the outer one is decided when compiling
            if next_look == t:
                at = place(rows, looked, n_captured, 0, FIELDS, head, HEADS, dims, DIM)
                store_planes(CAPTURED, at, h, c, n, m, ok, PLANE, FIELDS)
                looked += 1
                next_look = tl.load(POSITIONS + 1 + looked)
        if KEEP:
            at = place(rows, t, time, 0, FIELDS, head, HEADS, dims, DIM)
            store_planes(CARRIES, at, h, c, n, m, ok, PLANE, FIELDS)
    at = place(rows, 0, 1, 0, FIELDS, head, HEADS, dims, DIM)
    store_planes(LAST, at, h, c, n, m, ok, PLANE, FIELDS)
