"""The scan of `selective`: h_t = exp(delta_t A) h_{t-1} + (delta_t x_t) B_t and y_t = h_t C_t, h in registers.

Tokens are taken UNROLL at a time, all of their loads before the first use: the recurrence is short and a load is not.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def step(h, x, delta, b, a):
    """The carry h [channels, state] after a token; `x`, `delta` [channels], `b` [state], `a` [channels, state]."""
    return tl.exp(delta[:, None] * a) * h + (delta * x)[:, None] * b[None, :]


@triton.jit
@no_type_check
def edited(h, x, kind):
    """The carry after an edit of kind [channels]: 1 set, 2 add, 3 scale, 4 project out the unit x over the state."""
    kind = kind[:, None]
    out = tl.where(kind == 1, x, h)
    out = tl.where(kind == 2, h + x, out)
    out = tl.where(kind == 3, h * x, out)
    return tl.where(kind == 4, h - x * tl.sum(x * h, 1)[:, None], out)


@triton.jit
@no_type_check
def scan_kernel(
    X, DELTA, B, C, A, H_FIRST, READERS, VALUES, KINDS, SEGMENTS,
    Y, H_LAST, CAPTURED, ANSWERS, STARTS,
    time, n_segments, n_readers, reader_stride, n_captured,
    CHANNELS: tl.constexpr, STATE: tl.constexpr,
    CAPTURE: tl.constexpr, EDIT: tl.constexpr, READ: tl.constexpr, KEEP: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr, BLOCK_STATE: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Reads, captured carries, readers' answers; grid (batch, channel blocks). SEGMENTS as `segments` makes it;
    READERS [n_readers, 1 or channels, state], where `reader_stride` goes from one channel to the next."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    s = tl.arange(0, BLOCK_STATE)
    in_c, in_s = c < CHANNELS, s < STATE
    in_h = in_c[:, None] & in_s[None, :]
    at_h = c[:, None] * STATE + s[None, :]
    size = CHANNELS * STATE
    a = tl.load(A + at_h, mask=in_h, other=0).to(tl.float32)
    h = tl.load(H_FIRST + n * size + at_h, mask=in_h, other=0).to(tl.float32)

    for i in range(n_segments):
        t = tl.load(SEGMENTS + 5 * i)
        stop = tl.load(SEGMENTS + 5 * i + 1)
        if KEEP:
            tl.store(STARTS + (n * n_segments + i) * size + at_h, h, mask=in_h)
        while t < stop:
            xs, deltas, bs, cs = (), (), (), ()
            for j in tl.static_range(UNROLL):
                row = n * time + t + j
                # One comparison: 3.9's interpreter makes integers of a vector and a scalar of booleans.
                ok_c = c < tl.where(t + j < stop, CHANNELS, 0)
                ok_s = s < tl.where(t + j < stop, STATE, 0)
                xs += (tl.load(X + row * CHANNELS + c, mask=ok_c, other=0).to(tl.float32),)
                deltas += (tl.load(DELTA + row * CHANNELS + c, mask=ok_c, other=1).to(tl.float32),)
                bs += (tl.load(B + row * STATE + s, mask=ok_s, other=0).to(tl.float32),)
                cs += (tl.load(C + row * STATE + s, mask=ok_s, other=0).to(tl.float32),)
            for j in tl.static_range(UNROLL):
                row = n * time + t + j
                ok_c = c < tl.where(t + j < stop, CHANNELS, 0)
                h = tl.where(t + j < stop, step(h, xs[j], deltas[j], bs[j], a), h)
                tl.store(Y + row * CHANNELS + c, tl.sum(h * cs[j][None, :], 1), mask=ok_c)
                if READ:
                    for r in range(n_readers):
                        place = READERS + r * (STATE if reader_stride == 0 else size)
                        u = tl.load(place + c[:, None] * reader_stride + s[None, :], mask=in_h, other=0)
                        place = ANSWERS + (row * n_readers + r) * CHANNELS + c
                        tl.store(place, tl.sum(h * u.to(tl.float32), 1), mask=ok_c)
            t += UNROLL
        if EDIT:
            e = tl.load(SEGMENTS + 5 * i + 3)
            end = tl.load(SEGMENTS + 5 * i + 4)
            while e < end:
                kind = tl.load(KINDS + e * CHANNELS + c, mask=in_c, other=0)
                x = tl.load(VALUES + (e * tl.num_programs(0) + n) * size + at_h, mask=in_h, other=0)
                h = edited(h, x.to(tl.float32), kind)
                e += 1
        if CAPTURE:
            look = tl.load(SEGMENTS + 5 * i + 2)
            if look >= 0:
                tl.store(CAPTURED + (n * n_captured + look) * size + at_h, h, mask=in_h)
    tl.store(H_LAST + n * size + at_h, h, mask=in_h)
