"""The forward kernel: all tokens of some rows of one head, with captures and edits on the way."""

from typing import no_type_check

import triton
import triton.language as tl

from strobe.kernels.triton_matrix.algebra import dot
from strobe.kernels.triton_rnn.cell import blocks, edited, held_or_read, place, step


@triton.jit
@no_type_check
def recurrent(
    h, R, w, BIAS, gate, head, HEADS: tl.constexpr, dims, DIM: tl.constexpr,
    BIASED: tl.constexpr, HELD: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """R h + b' of one gate, [rows, dim]; `w` is its block, transposed, where it is held."""
    r = dot(h, held_or_read(w, R, gate, head, HEADS, dims, DIM, HELD), OPERAND, PRECISION)
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
    HELD: tl.constexpr, BLOCK_BATCH: tl.constexpr, BLOCK_DIM: tl.constexpr,
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
    h = tl.load(FIRST + place(rows, 0, 1, 0, FIELDS, head, HEADS, dims, DIM), mask=ok, other=0).to(tl.float32)
    c = tl.zeros_like(h)
    if FIELDS == 2:
        c = tl.load(FIRST + place(rows, 0, 1, 1, FIELDS, head, HEADS, dims, DIM), mask=ok, other=0).to(tl.float32)
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
        x0 = tl.load(PRE + place(rows, t, time, 0, GATES, head, HEADS, dims, DIM), mask=ok, other=0).to(tl.float32)
        r0 = recurrent(h, R, w0, BIAS, 0, head, HEADS, dims, DIM, BIASED, HELD, OPERAND, PRECISION)
        x1, x2, x3, r1, r2, r3 = x0, x0, x0, r0, r0, r0
        if GATES > 1:
            x1 = tl.load(PRE + place(rows, t, time, 1, GATES, head, HEADS, dims, DIM), mask=ok, other=0).to(tl.float32)
            x2 = tl.load(PRE + place(rows, t, time, 2, GATES, head, HEADS, dims, DIM), mask=ok, other=0).to(tl.float32)
            r1 = recurrent(h, R, w1, BIAS, 1, head, HEADS, dims, DIM, BIASED, HELD, OPERAND, PRECISION)
            r2 = recurrent(h, R, w2, BIAS, 2, head, HEADS, dims, DIM, BIASED, HELD, OPERAND, PRECISION)
        if GATES > 3:
            x3 = tl.load(PRE + place(rows, t, time, 3, GATES, head, HEADS, dims, DIM), mask=ok, other=0).to(tl.float32)
            r3 = recurrent(h, R, w3, BIAS, 3, head, HEADS, dims, DIM, BIASED, HELD, OPERAND, PRECISION)
        new_h, new_c, s0, s1, s2, s3 = step(h, c, x0, x1, x2, x3, r0, r1, r2, r3, CELL)
        if MASKED:
            real = tl.load(MASK + rows.to(tl.int64) * time + t, mask=rows < batch, other=0)[:, None] != 0
            new_h = tl.where(real, new_h, h)
            new_c = tl.where(real, new_c, c)
        # Past DIM a NaN times a weight of 0 is NaN, and would outlive an edit that takes the NaN out of h.
        h = tl.where(ok, new_h, 0.0)
        c = tl.where(ok, new_c, 0.0)
        tl.store(READ + place(rows, t, time, 0, 1, head, HEADS, dims, DIM), h, mask=ok)
        if KEEP:
            tl.store(SAVED + place(rows, t, time, 0, KEPT, head, HEADS, dims, DIM), s0, mask=ok)
            if KEPT > 1:
                tl.store(SAVED + place(rows, t, time, 1, KEPT, head, HEADS, dims, DIM), s1, mask=ok)
                tl.store(SAVED + place(rows, t, time, 2, KEPT, head, HEADS, dims, DIM), s2, mask=ok)
                tl.store(SAVED + place(rows, t, time, 3, KEPT, head, HEADS, dims, DIM), s3, mask=ok)
        if EDIT:
            while next_edit == t:
                at = (e * FIELDS * HEADS + head) * DIM + dims
                value = tl.load(VALUES + place(e * batch + rows, 0, 1, 0, 1, head, HEADS, dims, DIM), mask=ok, other=0)
                h = edited(h, value, tl.load(KINDS + at, mask=dims < DIM, other=0)[None, :])
                if FIELDS == 2:
                    c = edited(c, value, tl.load(KINDS + at + HEADS * DIM, mask=dims < DIM, other=0)[None, :])
                e += 1
                next_edit = tl.load(EDITED + 1 + e)
        if CAPTURE:  # noqa: SIM102 - the outer one is decided when compiling
            if next_look == t:
                at = place(rows, looked, n_captured, 0, FIELDS, head, HEADS, dims, DIM)
                tl.store(CAPTURED + at, h, mask=ok)
                if FIELDS == 2:
                    tl.store(CAPTURED + at + HEADS * DIM, c, mask=ok)
                looked += 1
                next_look = tl.load(POSITIONS + 1 + looked)
        if KEEP:
            at = place(rows, t, time, 0, FIELDS, head, HEADS, dims, DIM)
            tl.store(CARRIES + at, h, mask=ok)
            if FIELDS == 2:
                tl.store(CARRIES + at + HEADS * DIM, c, mask=ok)
    at = place(rows, 0, 1, 0, FIELDS, head, HEADS, dims, DIM)
    tl.store(LAST + at, h, mask=ok)
    if FIELDS == 2:
        tl.store(LAST + at + HEADS * DIM, c, mask=ok)
