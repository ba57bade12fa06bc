"""The backward kernels: the gradient of the carry, backwards over chunks, then those of the inputs, all chunks at once.

With dS the gradient of the carry at a chunk's end, D = (1 - (b|a)_<)^{-T} and the forward pass in `forward`:

    dW = D ((q|a)^T dy + (e^{G_C - G} a) dS)               dV = (q|k)^T dy + (e^{G_C - G} k) dS + (b|k)_<^T dW
    dS <- e^{G_C} dS + (e^G q)^T dy + (e^G b)^T dW          the gradient of the carry at the chunk's start

and those of q, k, a, b by the product rule. The log decay needs no rule of its own: shifting G_t at one channel scales
q_t and b_t there one way and k_t and a_t the other, and the carry at the end, so that for a token r of the chunk

    dg_r = sum_{t >= r} (q_t dq_t + b_t db_t - k_t dk_t - a_t da_t) + sum_v (S dS)_end

with one channel's sum where decays are per channel, all of them where there is one per head.
The delta rule has u = v - w for w: dU = D ((q|k)^T dy + (e^{G_C - G} k) dS), dV = dU, and b enters with the other sign.
"""

from typing import no_type_check

import triton
import triton.language as tl

from strobe.kernels.triton_matrix.algebra import (
    asked_of,
    causal_dot,
    cumulated,
    dot,
    gram,
    gram_gradients,
    load_tile,
    pair_decay,
    store_tile,
    written_by,
)
from strobe.kernels.triton_matrix.forward import load_decay, tokens_of


@triton.jit
@no_type_check
def carry_gradient_kernel(
    Q, K, G, A, B, INVERSE, CU, CUTS, LOOKS, D_Y, D_LAST, D_CAPTURED,
    D_FIRST, D_ENDS,
    n_chunks, n_captured,
    HEADS: tl.constexpr, HEADS_Q: tl.constexpr, HEADS_K: tl.constexpr, HEADS_B: tl.constexpr,
    KEY: tl.constexpr, VALUE: tl.constexpr,
    RANK: tl.constexpr, CHANNEL: tl.constexpr, CUT: tl.constexpr, CAPTURE: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_KEY: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """D_ENDS, the gradient of the carry at each chunk's end, and D_FIRST, that of the first; grid as the scan's.

    Every captured position has to be the last of its chunk.
    """
    unit = tl.program_id(0)
    n, head = unit // HEADS, unit % HEADS
    base = tl.load(CU + n)
    length = tl.load(CU + n + 1) - base
    keys, t = tl.arange(0, BLOCK_KEY), tl.arange(0, CHUNK)
    values = tl.program_id(1) * BLOCK_VALUE + tl.arange(0, BLOCK_VALUE)
    in_carry = (keys < KEY)[:, None] & (values < VALUE)[None, :]
    carry_at = keys[:, None] * VALUE + values[None, :]
    size = KEY * VALUE
    d_S = tl.load(D_LAST + unit.to(tl.int64) * size + carry_at, mask=in_carry, other=0).to(tl.float32)

    for back in range(n_chunks):
        i = n_chunks - 1 - back
        row, ok, _ = tokens_of(i, base, length, CUTS, CUT, CHUNK)
        if CAPTURE:
            at_end = tl.load(LOOKS + 5 * i + 2)
            if at_end >= 0:
                at = D_CAPTURED + (n * n_captured + at_end).to(tl.int64) * HEADS * size + head * size + carry_at
                d_S += tl.load(at, mask=in_carry, other=0).to(tl.float32)
        at = D_ENDS + (unit * n_chunks + i).to(tl.int64) * size + carry_at
        tl.store(at, d_S.to(D_ENDS.dtype.element_ty), mask=in_carry)

        g, g_next = load_decay(G, row, ok, head, HEADS, KEY, CHANNEL, BLOCK_KEY)
        from_start = tl.exp(cumulated(g, RANK, CHANNEL, False))
        pairs = 0.0 if CHANNEL else pair_decay(g, CHUNK)
        q = load_tile(Q, row, ok, head // (HEADS // HEADS_Q), HEADS_Q, keys, KEY)
        d_y = load_tile(D_Y, row, ok, head, HEADS, values, VALUE)
        before = tl.exp(tl.sum(g, 0))[:, None] * d_S + written_by(q, d_y, from_start, CHANNEL, OPERAND, PRECISION)
        if RANK > 0:
            to_end = tl.exp(cumulated(g_next, RANK, CHANNEL, True))
            if RANK == 1:
                a = load_tile(K, row, ok, head // (HEADS // HEADS_K), HEADS_K, keys, KEY)
            else:
                a = load_tile(A, row, ok, head, HEADS, keys, KEY)
            scores = gram(q, a, g, g_next, pairs, CHANNEL, CHUNK, OPERAND, PRECISION)
            d_answer = dot(tl.trans(scores), d_y, OPERAND, PRECISION) + asked_of(
                a, d_S, to_end, CHANNEL, OPERAND, PRECISION
            )
            place = INVERSE + (unit * n_chunks + i).to(tl.int64) * CHUNK * CHUNK
            inverse = tl.load(place + t[:, None] * CHUNK + t[None, :])
            d_asked = dot(tl.trans(inverse), d_answer, tl.float32, EXACT)
            b = load_tile(B, row, ok, head // (HEADS // HEADS_B), HEADS_B, keys, KEY)
            asked = written_by(b, d_asked, from_start, CHANNEL, OPERAND, PRECISION)
            before += asked if RANK == 2 else -asked
        d_S = before
    tl.store(D_FIRST + unit.to(tl.int64) * size + carry_at, d_S, mask=in_carry)


@triton.jit
@no_type_check
def input_gradient_kernel(
    Q, K, V, G, A, B, INVERSE, STARTS, D_ENDS, CU, CUTS, D_Y,
    D_Q, D_K, D_V, D_G, D_A, D_B,
    n_chunks,
    HEADS: tl.constexpr, HEADS_Q: tl.constexpr, HEADS_K: tl.constexpr, HEADS_B: tl.constexpr,
    KEY: tl.constexpr, VALUE: tl.constexpr,
    RANK: tl.constexpr, CHANNEL: tl.constexpr, CUT: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_KEY: tl.constexpr, BLOCK_VALUE: tl.constexpr, VALUE_BLOCKS: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Gradients of one chunk's inputs, per head: [rows, HEADS, ...]; grid (sequences * HEADS * n_chunks).

    One program goes through all of the value axis, so that nothing has to be added up afterwards.
    """
    unit, i = tl.program_id(0) // n_chunks, tl.program_id(0) % n_chunks
    n, head = unit // HEADS, unit % HEADS
    base = tl.load(CU + n)
    row, ok, _ = tokens_of(i, base, tl.load(CU + n + 1) - base, CUTS, CUT, CHUNK)
    keys, t = tl.arange(0, BLOCK_KEY), tl.arange(0, CHUNK)
    size = KEY * VALUE
    at_chunk = (unit * n_chunks + i).to(tl.int64)

    q = load_tile(Q, row, ok, head // (HEADS // HEADS_Q), HEADS_Q, keys, KEY)
    k = load_tile(K, row, ok, head // (HEADS // HEADS_K), HEADS_K, keys, KEY)
    g, g_next = load_decay(G, row, ok, head, HEADS, KEY, CHANNEL, BLOCK_KEY)
    from_start = tl.exp(cumulated(g, RANK, CHANNEL, False))
    to_end = tl.exp(cumulated(g_next, RANK, CHANNEL, True))
    total = tl.exp(tl.sum(g, 0))
    pairs = 0.0 if CHANNEL else pair_decay(g, CHUNK)
    q_k = gram(q, k, g, g_next, pairs, CHANNEL, CHUNK, OPERAND, PRECISION)
    if RANK > 0:
        b = load_tile(B, row, ok, head // (HEADS // HEADS_B), HEADS_B, keys, KEY)
        inverse = tl.load(INVERSE + at_chunk * CHUNK * CHUNK + t[:, None] * CHUNK + t[None, :])
        d_b = tl.zeros((CHUNK, BLOCK_KEY), tl.float32)
        d_b_k = tl.zeros((CHUNK, CHUNK), tl.float32)
    if RANK == 2:
        a = load_tile(A, row, ok, head, HEADS, keys, KEY)
        q_a = gram(q, a, g, g_next, pairs, CHANNEL, CHUNK, OPERAND, PRECISION)
        b_k = gram(b, k, g, g_next, pairs, CHANNEL, CHUNK, OPERAND, PRECISION)
        b_k = tl.where(t[:, None] > t[None, :], b_k, 0.0)
        d_a = tl.zeros((CHUNK, BLOCK_KEY), tl.float32)
        d_q_a = tl.zeros((CHUNK, CHUNK), tl.float32)
        d_b_a = tl.zeros((CHUNK, CHUNK), tl.float32)
    d_q = tl.zeros((CHUNK, BLOCK_KEY), tl.float32)
    d_k = tl.zeros((CHUNK, BLOCK_KEY), tl.float32)
    d_q_k = tl.zeros((CHUNK, CHUNK), tl.float32)
    crossing = tl.zeros((BLOCK_KEY,), tl.float32)

    for block in range(VALUE_BLOCKS):
        values = block * BLOCK_VALUE + tl.arange(0, BLOCK_VALUE)
        in_carry = (keys < KEY)[:, None] & (values < VALUE)[None, :]
        carry_at = at_chunk * size + keys[:, None] * VALUE + values[None, :]
        S = tl.load(STARTS + carry_at, mask=in_carry, other=0).to(tl.float32)
        d_S = tl.load(D_ENDS + carry_at, mask=in_carry, other=0).to(tl.float32)
        crossing += tl.sum(S * d_S, 1)
        v = load_tile(V, row, ok, head, HEADS, values, VALUE)
        d_y = load_tile(D_Y, row, ok, head, HEADS, values, VALUE)
        d_q += dot(d_y, tl.trans(S), OPERAND, PRECISION)
        d_v = dot(tl.trans(q_k), d_y, OPERAND, PRECISION) + asked_of(k, d_S, to_end, CHANNEL, OPERAND, PRECISION)
        written = v
        if RANK == 1:
            written = causal_dot(
                inverse, v - asked_of(b, S, from_start, CHANNEL, OPERAND, PRECISION), False, CHUNK, tl.float32, EXACT
            )
            d_v = dot(tl.trans(inverse), d_v, tl.float32, EXACT)
            d_b -= dot(d_v, tl.trans(S), OPERAND, PRECISION)
            d_b_k -= dot(d_v, tl.trans(written), OPERAND, PRECISION)
        if RANK == 2:
            asked = asked_of(b, S, from_start, CHANNEL, OPERAND, PRECISION)
            asked += causal_dot(b_k, v, True, CHUNK, OPERAND, PRECISION)
            answered = causal_dot(inverse, asked, False, CHUNK, tl.float32, EXACT)
            d_answer = dot(tl.trans(q_a), d_y, OPERAND, PRECISION) + asked_of(
                a, d_S, to_end, CHANNEL, OPERAND, PRECISION
            )
            d_asked = dot(tl.trans(inverse), d_answer, tl.float32, EXACT)
            d_v += dot(tl.trans(b_k), d_asked, OPERAND, PRECISION)
            d_b += dot(d_asked, tl.trans(S), OPERAND, PRECISION)
            d_b_k += dot(d_asked, tl.trans(v), OPERAND, PRECISION)
            d_b_a += dot(d_asked, tl.trans(answered), OPERAND, PRECISION)
            d_q_a += dot(d_y, tl.trans(answered), OPERAND, PRECISION)
            d_a += dot(answered, tl.trans(d_S), OPERAND, PRECISION)
        d_q_k += dot(d_y, tl.trans(written), OPERAND, PRECISION)
        d_k += dot(written, tl.trans(d_S), OPERAND, PRECISION)
        store_tile(D_V, d_v, row, ok, head, HEADS, values, VALUE)

    upto, before = t[:, None] >= t[None, :], t[:, None] > t[None, :]
    d_q, d_k = d_q * from_start, d_k * to_end
    end = total * crossing + tl.sum(k * d_k, 0)
    to_q, to_k = gram_gradients(tl.where(upto, d_q_k, 0.0), q, k, g, g_next, pairs, CHANNEL, CHUNK, OPERAND, PRECISION)
    d_q, d_k = d_q + to_q, d_k + to_k
    if RANK > 0:
        to_b, to_k = gram_gradients(
            tl.where(before, d_b_k, 0.0), b, k, g, g_next, pairs, CHANNEL, CHUNK, OPERAND, PRECISION
        )
        d_b, d_k = d_b * from_start + to_b, d_k + to_k
    if RANK == 2:
        d_a = d_a * to_end
        end += tl.sum(a * d_a, 0)
        to_q, to_a = gram_gradients(
            tl.where(upto, d_q_a, 0.0), q, a, g, g_next, pairs, CHANNEL, CHUNK, OPERAND, PRECISION
        )
        d_q, d_a = d_q + to_q, d_a + to_a
        to_b, to_a = gram_gradients(
            tl.where(before, d_b_a, 0.0), b, a, g, g_next, pairs, CHANNEL, CHUNK, OPERAND, PRECISION
        )
        d_b, d_a = d_b + to_b, d_a + to_a
        store_tile(D_A, d_a, row, ok, head, HEADS, keys, KEY)
    store_tile(D_Q, d_q, row, ok, head, HEADS, keys, KEY)
    store_tile(D_K, d_k, row, ok, head, HEADS, keys, KEY)

    shifts = q * d_q - k * d_k
    if RANK > 0:
        store_tile(D_B, d_b, row, ok, head, HEADS, keys, KEY)
        shifts += b * d_b
    if RANK == 2:
        shifts -= a * d_a
    if CHANNEL:
        d_g = tl.cumsum(shifts, 0, reverse=True) + end[None, :]
        store_tile(D_G, d_g, row, ok, head, HEADS, keys, KEY)
    else:
        d_g = cumulated(tl.sum(shifts, 1)[:, None], RANK, False, True) + tl.sum(end, 0)
        store_tile(D_G, d_g, row, ok, head, HEADS, tl.arange(0, 1), 1)
