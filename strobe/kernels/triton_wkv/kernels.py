"""The scan of `wkv` (`strobe.kernels.wkv.reference` has the equations) and its gradient.

Every exponential is of a number that is at most zero. The scale of a read cancels, so that no gradient goes through
it; the running maximum is part of the carry and does not: its gradient goes to the argument that won, half to each on
a tie, as for `torch.maximum`. With G = dL/d(num_t, den_t, max_t) over all paths but the read of token t+1,

    d(max_{t-1} + w) = e^{max_{t-1} + w - max_t} (G_num num_{t-1} + G_den den_{t-1}) + won * rest
    dk_t             = e^{k_t - max_t} (G_num v_t + G_den) + (1 - won) * rest

where `rest` is G_max less both first terms. To these a read adds its own, which sum to nothing over u + k_t and
max_{t-1}: it depends on their difference.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def larger(a, b):
    """The larger of two, not a number where one is not: the carry's maximum has to say so as the definition's does."""
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
@no_type_check
def read_weights(top, k, u):
    """What the past and the token itself count in its read, relative to the larger."""
    own = u + k
    scale = larger(top, own)
    return tl.exp(top - scale), tl.exp(own - scale)


@triton.jit
@no_type_check
def write_weights(top, k, w):
    """The maximum after a token, and what the past and the token count relative to it."""
    after = larger(top + w, k)
    return after, tl.exp(top + w - after), tl.exp(k - after)


@triton.jit
@no_type_check
def edited(x, value, kind, FIRST: tl.constexpr):
    """A field after an edit; FIRST is the field's number of "set"."""
    out = tl.where(kind == FIRST, value, x)
    out = tl.where(kind == FIRST + 1, x + value, out)
    return tl.where(kind == FIRST + 2, x * value, out)


@triton.jit
@no_type_check
def load_carry(P, row, c, limit, CHANNELS: tl.constexpr):
    """num, den and max of carry number `row`; 0 for channels from `limit` on."""
    at = row * (3 * CHANNELS) + c
    num = tl.load(P + at, mask=c < limit, other=0).to(tl.float32)
    den = tl.load(P + at + CHANNELS, mask=c < limit, other=0).to(tl.float32)
    top = tl.load(P + at + 2 * CHANNELS, mask=c < limit, other=0).to(tl.float32)
    return num, den, top


@triton.jit
@no_type_check
def store_carry(P, row, c, limit, num, den, top, CHANNELS: tl.constexpr):
    """The reverse of `load_carry`."""
    at = row * (3 * CHANNELS) + c
    tl.store(P + at, num, mask=c < limit)
    tl.store(P + at + CHANNELS, den, mask=c < limit)
    tl.store(P + at + 2 * CHANNELS, top, mask=c < limit)


@triton.jit
@no_type_check
def scan_kernel(
    K, V, W, U, MASK, FIRST, VALUES, KINDS, SEGMENTS, READ, EVERY, LAST, CAPTURED,
    time, n_segments, n_captured,
    CHANNELS: tl.constexpr, MASKED: tl.constexpr, KEEP: tl.constexpr, CAPTURE: tl.constexpr, EDIT: tl.constexpr,
    BLOCK: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Reads, carries before edits (EVERY, where KEEP) and, at the positions of SEGMENTS, after; grid (batch, channel
    blocks). Tokens are taken UNROLL at a time, all of their loads before the first use."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = c < CHANNELS
    w = tl.load(W + c, mask=ok, other=0).to(tl.float32)
    u = tl.load(U + c, mask=ok, other=0).to(tl.float32)
    num, den, top = load_carry(FIRST, n, c, CHANNELS, CHANNELS)
    for i in range(n_segments):
        t = tl.load(SEGMENTS + 5 * i)
        stop = tl.load(SEGMENTS + 5 * i + 1)
        while t < stop:
            ks, vs, writes = (), (), ()
            for j in tl.static_range(UNROLL):
                row = n * time + t + j
                limit = tl.where(t + j < stop, CHANNELS, 0)
                ks += (tl.load(K + row * CHANNELS + c, mask=c < limit, other=0).to(tl.float32),)
                vs += (tl.load(V + row * CHANNELS + c, mask=c < limit, other=0).to(tl.float32),)
                if MASKED:
                    writes += (tl.load(MASK + row, mask=t + j < stop, other=0) != 0,)
                else:
                    writes += (t + j < stop,)
            for j in tl.static_range(UNROLL):
                row = n * time + t + j
                limit = tl.where(t + j < stop, CHANNELS, 0)
                past, own = read_weights(top, ks[j], u)
                read = (past * num + own * vs[j]) / (past * den + own)
                tl.store(READ + row * CHANNELS + c, read, mask=c < limit)
                after, past, own = write_weights(top, ks[j], w)
                num = tl.where(writes[j], past * num + own * vs[j], num)
                den = tl.where(writes[j], past * den + own, den)
                top = tl.where(writes[j], after, top)
                if KEEP:
                    store_carry(EVERY, row, c, limit, num, den, top, CHANNELS)
            t += UNROLL
        if EDIT:
            e = tl.load(SEGMENTS + 5 * i + 3)
            end = tl.load(SEGMENTS + 5 * i + 4)
            while e < end:
                kind = tl.load(KINDS + e * CHANNELS + c, mask=ok, other=0)
                value = tl.load(VALUES + (e * tl.num_programs(0) + n) * CHANNELS + c, mask=ok, other=0)
                num = edited(num, value, kind, 1)
                den = edited(den, value, kind, 5)
                top = edited(top, value, kind, 9)
                e += 1
        if CAPTURE:
            look = tl.load(SEGMENTS + 5 * i + 2)
            if look >= 0:
                store_carry(CAPTURED, n * n_captured + look, c, CHANNELS, num, den, top, CHANNELS)
    store_carry(LAST, n, c, CHANNELS, num, den, top, CHANNELS)


@triton.jit
@no_type_check
def gradient_kernel(
    K, V, W, U, MASK, FIRST, EVERY, D_READ, D_EVERY, D_K, D_V, D_W, D_U, D_FIRST,
    time,
    CHANNELS: tl.constexpr, MASKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients from D_READ and D_EVERY, that of the carries; D_W and D_U [batch, channels] are to be summed over the
    batch. Grid as the scan's."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = c < CHANNELS
    w = tl.load(W + c, mask=ok, other=0).to(tl.float32)
    u = tl.load(U + c, mask=ok, other=0).to(tl.float32)
    d_w = tl.zeros((BLOCK,), tl.float32)
    d_u = tl.zeros((BLOCK,), tl.float32)
    g_num = tl.zeros((BLOCK,), tl.float32)
    g_den = tl.zeros((BLOCK,), tl.float32)
    g_top = tl.zeros((BLOCK,), tl.float32)
    t = time - 1
    while t >= 0:
        row = n * time + t
        k = tl.load(K + row * CHANNELS + c, mask=ok, other=0).to(tl.float32)
        v = tl.load(V + row * CHANNELS + c, mask=ok, other=0).to(tl.float32)
        d_read = tl.load(D_READ + row * CHANNELS + c, mask=ok, other=0).to(tl.float32)
        d_num, d_den, d_top = load_carry(D_EVERY, row, c, CHANNELS, CHANNELS)
        g_num, g_den, g_top = g_num + d_num, g_den + d_den, g_top + d_top
        # Of the first token the carry before is FIRST, whose limit is the other one's complement.
        num, den, top = load_carry(EVERY, row - 1, c, tl.where(t > 0, CHANNELS, 0), CHANNELS)
        num_0, den_0, top_0 = load_carry(FIRST, n, c, tl.where(t > 0, 0, CHANNELS), CHANNELS)
        num, den, top = num + num_0, den + den_0, top + top_0

        _, past, own = write_weights(top, k, w)
        by_past = past * (g_num * num + g_den * den)
        by_own = own * (g_num * v + g_den)
        rest = g_top - by_past - by_own
        won = tl.where(top + w > k, 1.0, tl.where(top + w == k, 0.5, 0.0))
        d_decayed, d_k, d_v = by_past + won * rest, by_own + (1 - won) * rest, own * g_num
        b_num, b_den, b_top = past * g_num, past * g_den, d_decayed
        if MASKED:
            write = tl.load(MASK + row) != 0
            d_decayed, d_k = tl.where(write, d_decayed, 0.0), tl.where(write, d_k, 0.0)
            d_v, b_top = tl.where(write, d_v, 0.0), tl.where(write, b_top, g_top)
            b_num, b_den = tl.where(write, b_num, g_num), tl.where(write, b_den, g_den)

        past, own = read_weights(top, k, u)
        below = past * den + own
        d_above = d_read / below
        d_below = -d_above * ((past * num + own * v) / below)
        # own (v - wkv), without the difference of two that are nearly one where the token itself outweighs the past.
        d_own = d_above * own * (past * (v * den - num) / below)
        tl.store(D_K + row * CHANNELS + c, d_k + d_own, mask=ok)
        tl.store(D_V + row * CHANNELS + c, d_v + own * d_above, mask=ok)
        d_w += d_decayed
        d_u += d_own
        g_num = b_num + past * d_above
        g_den = b_den + past * d_below
        g_top = b_top - d_own
        t -= 1
    tl.store(D_W + n * CHANNELS + c, d_w, mask=ok)
    tl.store(D_U + n * CHANNELS + c, d_u, mask=ok)
    store_carry(D_FIRST, n, c, CHANNELS, g_num, g_den, g_top, CHANNELS)
