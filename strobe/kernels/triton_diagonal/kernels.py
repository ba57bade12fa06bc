"""The scan of `diagonal` and its gradient: with G_t = dL/dh_t over all paths, an asterisk for the conjugate,

    G_t = dh_t + a*_{t+1} G_{t+1}        db_t = G_t        da_t = G_t h*_{t-1}        dh_0 = a*_1 G_1

A real problem is a complex one without imaginary parts: IMAGINARY is False and none of them is computed.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def load_pair(P, at, ok, IMAGINARY: tl.constexpr):
    """The real and the imaginary part of entries `at`, float32; 0 where not `ok`."""
    if IMAGINARY:
        x = tl.load(P + 2 * at, mask=ok, other=0).to(tl.float32)
        y = tl.load(P + 2 * at + 1, mask=ok, other=0).to(tl.float32)
    else:
        x = tl.load(P + at, mask=ok, other=0).to(tl.float32)
        y = tl.zeros_like(x)
    return x, y


@triton.jit
@no_type_check
def store_pair(P, at, ok, x, y, IMAGINARY: tl.constexpr):
    """The reverse of `load_pair`."""
    if IMAGINARY:
        tl.store(P + 2 * at, x, mask=ok)
        tl.store(P + 2 * at + 1, y, mask=ok)
    else:
        tl.store(P + at, x, mask=ok)


@triton.jit
@no_type_check
def times(ax, ay, bx, by, IMAGINARY: tl.constexpr):
    """The product of two pairs."""
    if IMAGINARY:
        x = ax * bx - ay * by
        y = ax * by + ay * bx
    else:
        x = ax * bx
        y = ay
    return x, y


@triton.jit
@no_type_check
def scan_kernel(
    A, B, H_FIRST, VALUES, KINDS, SEGMENTS, H, H_LAST, CAPTURED,
    time, n_segments, n_captured,
    CHANNELS: tl.constexpr, IMAGINARY: tl.constexpr, CAPTURE: tl.constexpr, EDIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Every carry before an edit (H) and, at the positions of SEGMENTS, after; grid (batch, channel blocks)."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = c < CHANNELS
    x, y = load_pair(H_FIRST, n * CHANNELS + c, ok, IMAGINARY)
    for i in range(n_segments):
        t = tl.load(SEGMENTS + 5 * i)
        stop = tl.load(SEGMENTS + 5 * i + 1)
        while t < stop:
            at = (n * time + t) * CHANNELS + c
            ax, ay = load_pair(A, at, ok, IMAGINARY)
            bx, by = load_pair(B, at, ok, IMAGINARY)
            x, y = times(ax, ay, x, y, IMAGINARY)
            x += bx
            y += by
            store_pair(H, at, ok, x, y, IMAGINARY)
            t += 1
        if EDIT:
            e = tl.load(SEGMENTS + 5 * i + 3)
            end = tl.load(SEGMENTS + 5 * i + 4)
            while e < end:
                kind = tl.load(KINDS + e * CHANNELS + c, mask=ok, other=0)
                vx, vy = load_pair(VALUES, (e * tl.num_programs(0) + n) * CHANNELS + c, ok, IMAGINARY)
                px, py = times(vx, vy, x, y, IMAGINARY)
                x = tl.where(kind == 1, vx, tl.where(kind == 2, x + vx, tl.where(kind == 3, px, x)))
                y = tl.where(kind == 1, vy, tl.where(kind == 2, y + vy, tl.where(kind == 3, py, y)))
                e += 1
        if CAPTURE:
            look = tl.load(SEGMENTS + 5 * i + 2)
            if look >= 0:
                store_pair(CAPTURED, (n * n_captured + look) * CHANNELS + c, ok, x, y, IMAGINARY)
    store_pair(H_LAST, n * CHANNELS + c, ok, x, y, IMAGINARY)


@triton.jit
@no_type_check
def gradient_kernel(
    A, H_FIRST, H, D_H, D_A, D_B, D_FIRST,
    time,
    CHANNELS: tl.constexpr, IMAGINARY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients from D_H, that of the carries; grid as the scan's."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = c < CHANNELS
    gx = tl.zeros((BLOCK,), tl.float32)
    gy = tl.zeros((BLOCK,), tl.float32)
    t = time - 1
    while t >= 0:
        at = (n * time + t) * CHANNELS + c
        dx, dy = load_pair(D_H, at, ok, IMAGINARY)
        gx += dx
        gy += dy
        store_pair(D_B, at, ok, gx, gy, IMAGINARY)
        # Of the first token the carry before is H_FIRST, whose mask is the other one's complement.
        hx, hy = load_pair(H, at - CHANNELS, c < tl.where(t > 0, CHANNELS, 0), IMAGINARY)
        fx, fy = load_pair(H_FIRST, n * CHANNELS + c, c < tl.where(t > 0, 0, CHANNELS), IMAGINARY)
        px, py = times(gx, gy, hx + fx, -(hy + fy), IMAGINARY)
        store_pair(D_A, at, ok, px, py, IMAGINARY)
        ax, ay = load_pair(A, at, ok, IMAGINARY)
        gx, gy = times(gx, gy, ax, -ay, IMAGINARY)
        t -= 1
    store_pair(D_FIRST, n * CHANNELS + c, ok, gx, gy, IMAGINARY)
