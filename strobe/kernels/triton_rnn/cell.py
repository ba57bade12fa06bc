"""One step of each cell and its gradient; the equations are in `strobe.kernels.rnn`.

Tiles are [rows, dim] in float32. CELL is 0 for Elman, 1 for the GRU, 2 for the LSTM; `c` is any tile where a cell has
none. `s0` to `s3` are what is saved: Elman h; GRU r, z, n and R_n h + b'_n; LSTM i, f, g, o.
"""

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def tanh(x):
    """The hyperbolic tangent, without overflow; Triton's own is a CUDA library call that the interpreter lacks.

    Near 0, where 1 - e^{-2|x|} would lose digits, its Maclaurin series: the first term left out is 1.2e-8 of x at 0.35.
    """
    e = tl.exp(-2.0 * tl.abs(x))
    y = (1.0 - e) / (1.0 + e)
    near = tl.abs(x) < 0.35
    q = tl.where(near, x * x, 0.0)
    series = 62.0 / 2835.0 + q * (-1382.0 / 155925.0)
    series = 1.0 + q * (-1.0 / 3.0 + q * (2.0 / 15.0 + q * (-17.0 / 315.0 + q * series)))
    return tl.where(near, x * series, tl.where(x < 0, -y, y))


@triton.jit
@no_type_check
def sigmoid(x):
    """The logistic function, without overflow on either side."""
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
@no_type_check
def step(h, c, x0, x1, x2, x3, r0, r1, r2, r3, CELL: tl.constexpr):
    """(h_t, c_t, s0, s1, s2, s3) from inputs x (W x_t + b, by gate) and r (R h_{t-1} + b', by gate)."""
    if CELL == 0:
        h = tanh(x0 + r0)
        return h, h, h, h, h, h
    elif CELL == 1:
        r, z = sigmoid(x0 + r0), sigmoid(x1 + r1)
        n = tanh(x2 + r * r2)
        h = (1.0 - z) * n + z * h
        return h, h, r, z, n, r2
    else:
        i, f, g, o = sigmoid(x0 + r0), sigmoid(x1 + r1), tanh(x2 + r2), sigmoid(x3 + r3)
        c = f * c + i * g
        return o * tanh(c), c, i, f, g, o


@triton.jit
@no_type_check
def step_gradient(d_h, d_c, h, c, s0, s1, s2, s3, CELL: tl.constexpr):
    """Gradients (of x by gate: x0 to x3; of r2 where it is another; of h_{t-1}, what does not pass R; of c_{t-1}).

    `d_h`, `d_c` are those of h_t and c_t; `h`, `c` are h_{t-1} and c_{t-1}.
    """
    if CELL == 0:
        d_0 = d_h * (1.0 - s0 * s0)
        return d_0, d_0, d_0, d_0, d_0, tl.zeros_like(d_h), d_c
    elif CELL == 1:
        d_n = d_h * (1.0 - s1) * (1.0 - s2 * s2)
        d_r = d_n * s3 * s0 * (1.0 - s0)
        d_z = d_h * (h - s2) * s1 * (1.0 - s1)
        return d_r, d_z, d_n, d_n, d_n * s0, d_h * s1, d_c
    else:
        t = tanh(s1 * c + s0 * s2)
        d_c += d_h * s3 * (1.0 - t * t)
        d_i = d_c * s2 * s0 * (1.0 - s0)
        d_f = d_c * c * s1 * (1.0 - s1)
        d_g = d_c * s0 * (1.0 - s2 * s2)
        d_o = d_h * t * s3 * (1.0 - s3)
        return d_i, d_f, d_g, d_o, d_g, tl.zeros_like(d_h), d_c * s1


@triton.jit
@no_type_check
def edited(x, value, kind):
    """A carry's x [rows, dim] after an edit; kind [1, dim]: 0 none, 1 set, 2 add, 3 scale, 4 project a unit out."""
    along = tl.sum(tl.where(kind == 4, x * value, 0.0), 1)[:, None]
    out = tl.where(kind == 1, value, x)
    out = tl.where(kind == 2, x + value, out)
    out = tl.where(kind == 3, x * value, out)
    return tl.where(kind == 4, x - value * along, out)


@triton.jit
@no_type_check
def edit_gradient(d, value, kind):
    """The gradient of what `edited` was given, from that of what it returned."""
    along = tl.sum(tl.where(kind == 4, d * value, 0.0), 1)[:, None]
    out = tl.where(kind == 1, 0.0, d)
    out = tl.where(kind == 3, d * value, out)
    return tl.where(kind == 4, d - value * along, out)


@triton.jit
@no_type_check
def place(rows, t, time, plane, PLANES: tl.constexpr, head, HEADS: tl.constexpr, dims, DIM: tl.constexpr):
    """Offsets [rows, dim] of token `t` in a tensor [batch, time, PLANES, HEADS, DIM]."""
    row = ((rows.to(tl.int64) * time + t) * PLANES + plane) * HEADS + head
    return row[:, None] * DIM + dims[None, :]


@triton.jit
@no_type_check
def block(R, gate, head, HEADS: tl.constexpr, dims, DIM: tl.constexpr):
    """One head's block [dim, dim] of the recurrent weights of one gate, from [gates, HEADS, DIM, DIM]."""
    at = ((gate * HEADS + head) * DIM + dims[:, None]) * DIM + dims[None, :]
    return tl.load(R + at, mask=(dims < DIM)[:, None] & (dims < DIM)[None, :], other=0)


@triton.jit
@no_type_check
def held_or_read(w, R, gate, head, HEADS: tl.constexpr, dims, DIM: tl.constexpr, HELD: tl.constexpr):
    """The block of one gate: `w` where it is held, else read."""
    if HELD:
        return w
    else:
        # Otherwise the compiler reads the blocks of all gates before the first product, and registers run out.
        tl.debug_barrier()
        return block(R, gate, head, HEADS, dims, DIM)


@triton.jit
@no_type_check
def blocks(R, head, HEADS: tl.constexpr, dims, DIM: tl.constexpr, GATES: tl.constexpr):
    """The blocks of all gates, four values; those past GATES repeat the first."""
    w0 = block(R, 0, head, HEADS, dims, DIM)
    w1 = w0
    w2 = w0
    w3 = w0
    if GATES > 1:
        w1 = block(R, 1, head, HEADS, dims, DIM)
        w2 = block(R, 2, head, HEADS, dims, DIM)
    if GATES > 3:
        w3 = block(R, 3, head, HEADS, dims, DIM)
    return w0, w1, w2, w3
