"""One step of each cell and its gradient; the equations are in `strobe.kernels.rnn`.

Tiles are [rows, dim] in float32. CELL is 0 for Elman, 1 for the GRU, 2 for the LSTM, 3 for sLSTM; `c`, `n` and `m` are
any tile where a cell has none. `s0` to `s3` are what is saved: Elman h; GRU r, z, n and R_n h + b'_n; LSTM i, f, g, o;
sLSTM the pre-activations i~ and f~ (from f, rounded to 1 or 0, its gradient could not be made), tanh(z~), sigmoid(o~).
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
def log_sigmoid(x):
    """log(sigmoid(x)), without overflow; its error is absolute, as what is exponentiated needs."""
    return tl.minimum(x, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
@no_type_check
def scaled_gates(i, f, m):
    """(i_t, f_t, m_t) of sLSTM from i~, f~ and m_{t-1}. A NaN of either side is one of m, as torch's maximum has it."""
    log_f = log_sigmoid(f) + m
    m = tl.where((i > log_f) | (i != i), i, log_f)
    return tl.exp(i - m), tl.exp(log_f - m), m


@triton.jit
@no_type_check
def step(h, c, n, m, x0, x1, x2, x3, r0, r1, r2, r3, CELL: tl.constexpr):
    """(h_t, c_t, n_t, m_t, s0, s1, s2, s3) from inputs x (W x_t + b, by gate) and r (R h_{t-1} + b', by gate)."""
    if CELL == 0:
        h = tanh(x0 + r0)
        return h, h, h, h, h, h, h, h
    elif CELL == 1:
        r, z = sigmoid(x0 + r0), sigmoid(x1 + r1)
        n = tanh(x2 + r * r2)
        h = (1.0 - z) * n + z * h
        return h, h, h, h, r, z, n, r2
    elif CELL == 2:
        i, f, g, o = sigmoid(x0 + r0), sigmoid(x1 + r1), tanh(x2 + r2), sigmoid(x3 + r3)
        c = f * c + i * g
        return o * tanh(c), c, c, c, i, f, g, o
    else:
        pre_i, pre_f, z, o = x0 + r0, x1 + r1, tanh(x2 + r2), sigmoid(x3 + r3)
        i, f, m = scaled_gates(pre_i, pre_f, m)
        c, n = f * c + i * z, f * n + i
        return o * c / n, c, n, m, pre_i, pre_f, z, o


@triton.jit
@no_type_check
def step_gradient(d_h, d_c, d_n, d_m, h, c, n, m, s0, s1, s2, s3, CELL: tl.constexpr):
    """Gradients of x by gate, x0 to x3; of r2 where it is another; of h_{t-1}, what does not pass R; of c, n, m_{t-1}.

    `d_h` to `d_m` are those of the carry after t; `h` to `m` are the carry before it.
    """
    if CELL == 0:
        d_0 = d_h * (1.0 - s0 * s0)
        return d_0, d_0, d_0, d_0, d_0, tl.zeros_like(d_h), d_c, d_n, d_m
    elif CELL == 1:
        d_n = d_h * (1.0 - s1) * (1.0 - s2 * s2)
        d_r = d_n * s3 * s0 * (1.0 - s0)
        d_z = d_h * (h - s2) * s1 * (1.0 - s1)
        return d_r, d_z, d_n, d_n, d_n * s0, d_h * s1, d_c, d_c, d_c
    elif CELL == 2:
        t = tanh(s1 * c + s0 * s2)
        d_c += d_h * s3 * (1.0 - t * t)
        d_i = d_c * s2 * s0 * (1.0 - s0)
        d_f = d_c * c * s1 * (1.0 - s1)
        d_g = d_c * s0 * (1.0 - s2 * s2)
        d_o = d_h * t * s3 * (1.0 - s3)
        return d_i, d_f, d_g, d_o, d_g, tl.zeros_like(d_h), d_c * s1, d_n, d_m
    else:
        i, f, _ = scaled_gates(s0, s1, m)
        c_t, n_t = f * c + i * s2, f * n + i
        over_n = d_h * s3 / n_t
        d_c += over_n
        d_n -= over_n * c_t / n_t
        past, own = (d_c * c + d_n * n) * f, (d_c * s2 + d_n) * i
        # What m_t divides by comes back from both exponentials, and goes to whichever of the two the maximum took.
        d_m -= past + own
        log_f = log_sigmoid(s1) + m
        share = tl.where(s0 > log_f, 1.0, tl.where(s0 == log_f, 0.5, 0.0))
        d_i = own + share * d_m
        d_past = past + (1.0 - share) * d_m
        d_o = d_h * c_t / n_t * s3 * (1.0 - s3)
        d_z = d_c * i * (1.0 - s2 * s2)
        return d_i, d_past * sigmoid(-s1), d_z, d_o, d_z, tl.zeros_like(d_h), d_c * f, d_n * f, d_past


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
def edited_field(x, value, KINDS, at, dims, DIM: tl.constexpr):
    """One field after the edit whose kinds, one a channel, are at `at`."""
    return edited(x, value, tl.load(KINDS + at, mask=dims < DIM, other=0)[None, :])


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
def edited_field_gradient(d, value, KINDS, at, dims, DIM: tl.constexpr):
    """The gradient of what `edited_field` was given."""
    return edit_gradient(d, value, tl.load(KINDS + at, mask=dims < DIM, other=0)[None, :])


@triton.jit
@no_type_check
def load_planes(P, at, ok, PLANE: tl.constexpr, PLANES: tl.constexpr, THIRD: tl.constexpr):
    """One, two or four tiles, PLANE apart, as float32; those that there are not are the first. Where not `ok` they are
    0, and the third is THIRD: a normaliser n is 1 there, so that nothing is divided by 0."""
    x = tl.load(P + at, mask=ok, other=0).to(tl.float32)
    y, z, w = x, x, x
    if PLANES > 1:
        y = tl.load(P + at + PLANE, mask=ok, other=0).to(tl.float32)
    if PLANES > 2:
        z = tl.load(P + at + 2 * PLANE, mask=ok, other=THIRD).to(tl.float32)
        w = tl.load(P + at + 3 * PLANE, mask=ok, other=0).to(tl.float32)
    return x, y, z, w


@triton.jit
@no_type_check
def store_planes(P, at, x, y, z, w, ok, PLANE: tl.constexpr, PLANES: tl.constexpr):
    """The reverse of `load_planes`."""
    tl.store(P + at, x, mask=ok)
    if PLANES > 1:
        tl.store(P + at + PLANE, y, mask=ok)
    if PLANES > 2:
        tl.store(P + at + 2 * PLANE, z, mask=ok)
        tl.store(P + at + 3 * PLANE, w, mask=ok)


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
