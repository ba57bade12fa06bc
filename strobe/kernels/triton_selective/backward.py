"""The gradients of `selective`, from the last segment to the first. With G_t = dL/dh_t over all paths,

    G_t = dy_t C_t + sum_r danswer_tr u_r + exp(delta_{t+1} A) G_{t+1}       and, where h_t is captured, dcaptured
    dC_t = sum_c dy_t h_t        dB_t = sum_c delta_t x_t G_t        dx_t = delta_t sum_n G_t B_t
    L_t = G_t h_{t-1} exp(delta_t A)        ddelta_t = x_t sum_n G_t B_t + sum_n L_t A        dA = sum_t L_t delta_t

Sums over channels are of one program's; the programs' are added afterwards, so that the order is always the same.
"""

from typing import no_type_check

import triton
import triton.language as tl

from strobe.kernels.triton_selective.forward import step


@triton.jit
@no_type_check
def gradient_kernel(
    X, DELTA, B, C, A, READERS, SEGMENTS, STARTS, D_Y, D_LAST, D_CAPTURED, D_ANSWERS,
    D_X, D_DELTA, D_B, D_C, D_A, D_FIRST, D_READERS, STATES,
    time, n_segments, n_readers, reader_stride, n_captured,
    CHANNELS: tl.constexpr, STATE: tl.constexpr,
    CAPTURE: tl.constexpr, READ: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr, BLOCK_STATE: tl.constexpr, LONGEST: tl.constexpr,
):  # fmt: skip
    """Grid (batch, channel blocks). D_B, D_C [blocks, batch, time, state] and D_A [batch, channels, state] are parts of
    sums; D_READERS [batch, n_readers, channels, state] begins as zeros; STATES [batch, LONGEST, channels, state] is
    room for the states before each token of a segment."""
    n, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = block * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    s = tl.arange(0, BLOCK_STATE)
    in_c, in_s = c < CHANNELS, s < STATE
    in_h = in_c[:, None] & in_s[None, :]
    at_h = c[:, None] * STATE + s[None, :]
    size = CHANNELS * STATE
    a = tl.load(A + at_h, mask=in_h, other=0).to(tl.float32)
    d_h = tl.load(D_LAST + n * size + at_h, mask=in_h, other=0)
    d_a = tl.zeros((BLOCK_CHANNELS, BLOCK_STATE), tl.float32)

    for back in range(n_segments):
        i = n_segments - 1 - back
        start = tl.load(SEGMENTS + 5 * i)
        stop = tl.load(SEGMENTS + 5 * i + 1)
        if CAPTURE:
            look = tl.load(SEGMENTS + 5 * i + 2)
            if look >= 0:
                d_h += tl.load(D_CAPTURED + (n * n_captured + look) * size + at_h, mask=in_h, other=0)

        h = tl.load(STARTS + (n * n_segments + i) * size + at_h, mask=in_h, other=0)
        t = start
        while t < stop:
            tl.store(STATES + (n * LONGEST + t - start) * size + at_h, h, mask=in_h)
            row = n * time + t
            x = tl.load(X + row * CHANNELS + c, mask=in_c, other=0).to(tl.float32)
            delta = tl.load(DELTA + row * CHANNELS + c, mask=in_c, other=0).to(tl.float32)
            b = tl.load(B + row * STATE + s, mask=in_s, other=0).to(tl.float32)
            h = step(h, x, delta, b, a)
            t += 1
        # What is read below was written by other threads of this program.
        tl.debug_barrier()

        while t > start:
            t -= 1
            row = n * time + t
            x = tl.load(X + row * CHANNELS + c, mask=in_c, other=0).to(tl.float32)
            delta = tl.load(DELTA + row * CHANNELS + c, mask=in_c, other=0).to(tl.float32)
            b = tl.load(B + row * STATE + s, mask=in_s, other=0).to(tl.float32)
            q = tl.load(C + row * STATE + s, mask=in_s, other=0).to(tl.float32)
            d_y = tl.load(D_Y + row * CHANNELS + c, mask=in_c, other=0)
            before = tl.load(STATES + (n * LONGEST + t - start) * size + at_h, mask=in_h, other=0)
            d_h += d_y[:, None] * q[None, :]
            if READ:
                for r in range(n_readers):
                    place = READERS + r * (STATE if reader_stride == 0 else size)
                    u = tl.load(place + c[:, None] * reader_stride + s[None, :], mask=in_h, other=0).to(tl.float32)
                    d_answer = tl.load(D_ANSWERS + (row * n_readers + r) * CHANNELS + c, mask=in_c, other=0)
                    d_h += d_answer[:, None] * u
                    place = D_READERS + (n * n_readers + r) * size + at_h
                    so_far = tl.load(place, mask=in_h, other=0)
                    tl.store(place, so_far + d_answer[:, None] * h, mask=in_h)
            decay = tl.exp(delta[:, None] * a)
            part = (block.to(tl.int64) * tl.num_programs(0) * time + row) * STATE + s
            tl.store(D_C + part, tl.sum(d_y[:, None] * h, 0), mask=in_s)
            tl.store(D_B + part, tl.sum(d_h * (delta * x)[:, None], 0), mask=in_s)
            write = tl.sum(d_h * b[None, :], 1)
            d_log = d_h * before * decay
            d_a += d_log * delta[:, None]
            tl.store(D_X + row * CHANNELS + c, write * delta, mask=in_c)
            tl.store(D_DELTA + row * CHANNELS + c, write * x + tl.sum(d_log * a, 1), mask=in_c)
            d_h = d_h * decay
            h = before
        # The next segment's states go where this one's were.
        tl.debug_barrier()
    tl.store(D_FIRST + n * size + at_h, d_h, mask=in_h)
    tl.store(D_A + n * size + at_h, d_a, mask=in_h)
