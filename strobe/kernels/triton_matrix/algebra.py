"""Products inside a chunk: decays between its tokens, and sums over the pairs (t, s) with s before t.

As in `strobe.kernels.chunks` every exponential is of a sum of log decays over tokens *between* two tokens, so that
nothing overflows and nothing is divided by a decay that underflowed. Here the sums are taken without a subtraction
(cumulated from where they begin), which is why float32 is enough and a decay of exactly zero (-inf) needs no care.

A product with zeros does not stop a NaN: 0 * NaN is NaN, so a matrix product would carry a token's NaN to the tokens
before it. Where one operand is zero for s > t, the other has its non-finite entries taken out and every row from the
first of them on answers NaN.

Letters in names and comments: t (row, the later token), s (column, the earlier one), c (key channel), v (value).
`g` is the log decay of each token and `g_next` that of the token after it, 0 after the chunk's last; both [chunk, c]
or, with one decay per head, [chunk, 1]. `PAIRS` is D[t, s] of `pair_decay`, or anything where decays are per channel.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def load_tile(P, row, ok, head, HEADS: tl.constexpr, cols, SIZE: tl.constexpr):
    """Rows from `row` (int64) of a [rows, HEADS, SIZE] tensor at one head; 0 where not `ok` or past SIZE."""
    at = tl.arange(0, ok.shape[0])[:, None] * (HEADS * SIZE) + cols[None, :]
    return tl.load(P + (row * HEADS + head) * SIZE + at, mask=ok[:, None] & (cols < SIZE)[None, :], other=0)


@triton.jit
@no_type_check
def store_tile(P, x, row, ok, head, HEADS: tl.constexpr, cols, SIZE: tl.constexpr):
    """The reverse of `load_tile`, in the dtype that P points to."""
    at = tl.arange(0, ok.shape[0])[:, None] * (HEADS * SIZE) + cols[None, :]
    place = P + (row * HEADS + head) * SIZE + at
    tl.store(place, x.to(P.dtype.element_ty), mask=ok[:, None] & (cols < SIZE)[None, :])


@triton.jit
@no_type_check
def dot(x, y, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """The product x @ y, summed in float32, with operands rounded to OPERAND."""
    return tl.dot(x.to(OPERAND), y.to(OPERAND), input_precision=PRECISION)


@triton.jit
@no_type_check
def pair_decay(g, CHUNK: tl.constexpr):
    """D[t, s], the product of the decays after s up to t, for one decay per head; 0 for s > t."""
    t = tl.arange(0, CHUNK)
    later = t[:, None] > t[None, :]
    sums = tl.cumsum(tl.where(later, tl.broadcast_to(g, (CHUNK, CHUNK)), 0.0), 0)
    return tl.where(t[:, None] >= t[None, :], tl.exp(sums), 0.0)


@triton.jit
@no_type_check
def cumulated(x, RANK: tl.constexpr, CHANNEL: tl.constexpr, REVERSE: tl.constexpr):
    """Sums of x [chunk, c] over the rows up to each, itself included; with REVERSE over those from each on.

    One column, a decay per head, is not scanned as it is: its layout is the compiler's choice and may keep several
    columns in a thread, a scan of which triton 3.6 does not lower (it stops at an assertion). Of the two ways around
    that, a sum over pairs of rows and the scan of a vector, each rank has the one that compiles to fewer spills.
    """
    if CHANNEL:
        sums = tl.cumsum(x, 0, reverse=REVERSE)
    elif RANK == 0:
        t = tl.arange(0, x.shape[0])
        counted = (t[:, None] <= t[None, :]) if REVERSE else (t[:, None] >= t[None, :])
        sums = tl.sum(tl.where(counted, tl.trans(x), 0.0), 1)[:, None]
    else:
        sums = tl.cumsum(tl.sum(x, 1), 0, reverse=REVERSE)[:, None]
    return sums


@triton.jit
@no_type_check
def in_halves(x, HALF: tl.constexpr, CHUNK: tl.constexpr, REVERSE: tl.constexpr):
    """Cumulated sums of x [chunk, c] that begin anew every HALF rows."""
    sums = tl.cumsum(tl.reshape(x, (CHUNK // HALF, HALF, x.shape[1])), 1, reverse=REVERSE)
    return tl.reshape(sums, (CHUNK, x.shape[1]))


@triton.jit
@no_type_check
def halves(g, g_next, HALF: tl.constexpr, CHUNK: tl.constexpr):
    """For blocks of 2 HALF tokens: the decays from the middle up to each late token, those after each early token up to
    the middle, both [chunk, c] and 0 for the others, and which pairs (t, s) lie in the two halves of one block.

    A pair belongs to one HALF only, so that each is counted once; decays per channel cannot be pulled out of the sum
    over channels, and this splits them without either factor growing.
    """
    t = tl.arange(0, CHUNK)
    late = (t & HALF) != 0
    ends = (t & (HALF - 1)) == HALF - 1
    after = tl.where(late[:, None], tl.exp(in_halves(g, HALF, CHUNK, False)), 0.0)
    inner = tl.where(ends[:, None], 0.0, g_next)
    before = tl.where(late[:, None], 0.0, tl.exp(in_halves(inner, HALF, CHUNK, True)))
    block = t // (2 * HALF)
    pairs = (block[:, None] == block[None, :]) & late[:, None] & (late[None, :] == 0)
    return after, before, pairs


@triton.jit
@no_type_check
def gram(
    x, y, g, g_next, PAIRS, CHANNEL: tl.constexpr, CHUNK: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr
):
    """(x|y)[t, s] = sum_c x_tc y_sc (decays after s up to t), 0 for s > t."""
    t = tl.arange(0, CHUNK)
    if CHANNEL:
        total = tl.where(t[:, None] == t[None, :], tl.sum(x.to(tl.float32) * y.to(tl.float32), 1)[:, None], 0.0)
        for level in tl.static_range(8):
            if (1 << level) < CHUNK:
                after, before, pairs = halves(g, g_next, 1 << level, CHUNK)
                part = dot(x * after, tl.trans(y * before), OPERAND, PRECISION)
                total = tl.where(pairs, part, total)
    else:
        total = tl.where(t[:, None] >= t[None, :], dot(x, tl.trans(y), OPERAND, PRECISION) * PAIRS, 0.0)
    return total


@triton.jit
@no_type_check
def gram_gradients(
    M,
    x,
    y,
    g,
    g_next,
    PAIRS,
    CHANNEL: tl.constexpr,
    CHUNK: tl.constexpr,
    OPERAND: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of sum_ts M[t, s] (x|y)[t, s]: the gradients with respect to x and to y, [chunk, c]. M is 0 for s > t."""
    t = tl.arange(0, CHUNK)
    if CHANNEL:
        same = tl.sum(tl.where(t[:, None] == t[None, :], M, 0.0), 1)[:, None]
        to_x, to_y = same * y, same * x
        for level in tl.static_range(8):
            if (1 << level) < CHUNK:
                after, before, pairs = halves(g, g_next, 1 << level, CHUNK)
                part = tl.where(pairs, M, 0.0)
                to_x += after * dot(part, y * before, OPERAND, PRECISION)
                to_y += before * dot(tl.trans(part), x * after, OPERAND, PRECISION)
    else:
        part = M * PAIRS
        to_x = dot(part, y, OPERAND, PRECISION)
        to_y = dot(tl.trans(part), x, OPERAND, PRECISION)
    return to_x, to_y


@triton.jit
@no_type_check
def asked_of(x, S, decay, CHANNEL: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """(decay x) S: [chunk, key] and [key, value] to [chunk, value]. A decay per head waits until after the product."""
    return dot(x * decay, S, OPERAND, PRECISION) if CHANNEL else dot(x, S, OPERAND, PRECISION) * decay


@triton.jit
@no_type_check
def written_by(x, v, decay, CHANNEL: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """(decay x)^T v: [chunk, key] and [chunk, value] to [key, value]. A decay per head goes to the values."""
    left = x * decay if CHANNEL else x
    return dot(tl.trans(left), v if CHANNEL else v * decay, OPERAND, PRECISION)


@triton.jit
@no_type_check
def causal_dot(M, x, STRICT: tl.constexpr, CHUNK: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr):
    """M @ x for M [chunk, chunk] that is 0 for s > t (STRICT: for s >= t), with a NaN of x reaching no earlier row."""
    t = tl.arange(0, CHUNK)
    bad = (tl.abs(x.to(tl.float32)) < float("inf")) == 0
    first = tl.min(tl.where(bad, t[:, None], CHUNK), 0)
    y = dot(M, tl.where(bad, 0.0, x), OPERAND, PRECISION)
    reached = (t[:, None] > first[None, :]) if STRICT else (t[:, None] >= first[None, :])
    return tl.where(reached, float("nan"), y)
