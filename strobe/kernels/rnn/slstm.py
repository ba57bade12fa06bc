"""sLSTM (Beck et al. 2024, "xLSTM", arXiv:2405.04517, section 2.2, eqs. 8-17): the definition.

    i~_t = W_i x_t + R_i h_{t-1} + b_i            and so f~_t, z~_t, o~_t
    m_t = max(log sigmoid(f~_t) + m_{t-1}, i~_t)                                      (eq. 15, the stabiliser)
    i_t = exp(i~_t - m_t)                         f_t = exp(log sigmoid(f~_t) + m_{t-1} - m_t)
    c_t = f_t * c_{t-1} + i_t * tanh(z~_t)        n_t = f_t * n_{t-1} + i_t
    h_t = sigmoid(o~_t) * c_t / n_t

The input gate is an exponential; c and n are kept divided by e^m, which cancels in h. Of the paper's two forget gates,
sigmoid and exponential, the former. W = [W_i; W_f; W_z; W_o], and so on. R is block-diagonal by head
(`strobe.kernels.rnn.blocks`); one head is a dense R.

n_t is at least 1 from the first token on, so that nothing is divided by zero: either i_t or f_t is 1. An edit can end
that, and what is divided is then what the edit said.

Shape letters: batch, time, input (size of x_t), hidden (size of each field), dim (of a head), n_readers. The read is
h_t.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from strobe.kernels.chunks import work_dtype
from strobe.kernels.diagonal.recurrence import diagonal_scan
from strobe.kernels.rnn.autocast import outside_autocast
from strobe.kernels.rnn.blocks import recurrent
from strobe.kernels.rnn.mask import before, hold, keep, random_weights
from strobe.kernels.wkv.running_max import running_max, with_gradient

# log 0, near enough in float32 and without infinities: e^EMPTY is 0, and EMPTY - EMPTY is 0.
EMPTY = -1e38


class SLSTMCarry(NamedTuple):
    """Each [batch, hidden]: `h`, cell `c`, normaliser `n`, and `m`, the log of the scale of both."""

    h: Tensor
    c: Tensor
    n: Tensor
    m: Tensor


class SLSTMSignals(NamedTuple):
    """`W`, `R`, `b` are constants; a False in `mask` is padding.

    Computed in the widest dtype given, at least float32, and so are the carry and the read: m is a logarithm, and
    bfloat16 would round a scale of e^40 by a factor of 1.13.
    """

    x: Float[Tensor, "batch time input"]
    W: Float[Tensor, "4*hidden input"]
    R: Float[Tensor, "4*hidden dim"]
    b: Float[Tensor, " 4*hidden"]
    mask: Bool[Tensor, "batch time"] | None = None


class SLSTMTrace(NamedTuple):
    """Everything the cell computed, each [batch, time, hidden]: what multiplies at a token, `i` and `f` (at most 1, the
    larger of them nearly always 1), candidate `z`, gate `o`, and the carry."""

    i: Tensor
    f: Tensor
    z: Tensor
    o: Tensor
    c: Tensor
    n: Tensor
    m: Tensor
    h: Tensor


def widened(signals: SLSTMSignals) -> SLSTMSignals:
    """`signals` in the dtype that is computed in."""
    dtype = work_dtype(*signals[:4])
    x, W, R, b = (y.to(dtype) for y in signals[:4])
    return SLSTMSignals(x, W, R, b, signals.mask)


def init_carry(signals: SLSTMSignals) -> SLSTMCarry:
    """h_0 = c_0 = n_0 = 0 and m_0 = -1e38, which stands for minus infinity: the first token's i is 1 whatever i~ is."""
    zeros = signals.R.new_zeros(signals.x.shape[0], signals.R.shape[0] // 4, dtype=work_dtype(*signals[:4]))
    return SLSTMCarry(zeros, zeros.clone(), zeros.clone(), torch.full_like(zeros, EMPTY))


def cell(pre: Tensor, carry: SLSTMCarry) -> SLSTMCarry:
    """The carry after a token whose pre-activations are `pre` [batch, 4 * hidden]."""
    i, f, z, o = pre.chunk(4, -1)
    log_f = F.logsigmoid(f) + carry.m
    m = torch.maximum(log_f, i)
    i, f = torch.exp(i - m), torch.exp(log_f - m)
    c, n = f * carry.c + i * torch.tanh(z), f * carry.n + i
    return SLSTMCarry(torch.sigmoid(o) * c / n, c, n, m)


@outside_autocast
def step(signals: SLSTMSignals, carry: SLSTMCarry) -> tuple[SLSTMCarry, Tensor]:
    """One token: `signals.x` [batch, input], `signals.mask` [batch]; the read is h_t [batch, hidden]."""
    signals = widened(signals)
    pre = F.linear(signals.x, signals.W, signals.b) + recurrent(carry.h, signals.R, 4)
    carry = keep(signals.mask, cell(pre, carry), carry)
    return carry, carry.h


@outside_autocast
def slstm_trace(signals: SLSTMSignals, carry: SLSTMCarry, read: Tensor) -> SLSTMTrace:
    """Every gate and the carry of every token from the `read` [batch, time, hidden] of a scan that began at `carry`.

    Given h the pre-activations are one product, given those m is a running maximum, and given that c and n are diagonal
    recurrences. At a padded token the cell holds: f = 1, i = 0, and `z` and `o` are NaN because none were computed.
    """
    signals = widened(signals)
    pre = F.linear(signals.x, signals.W, signals.b) + recurrent(before(carry.h, read), signals.R, 4)
    i, f, z, o = pre.chunk(4, -1)
    log_f, z, o = F.logsigmoid(f), torch.tanh(z), torch.sigmoid(o)
    padding = None if signals.mask is None else ~signals.mask.unsqueeze(-1)
    if padding is not None:
        log_f, i = log_f.masked_fill(padding, 0), i.masked_fill(padding, EMPTY)
    m = with_gradient(running_max(i, log_f, carry.m), i, log_f, carry.m)
    i, f = torch.exp(i - m), torch.exp(log_f + before(carry.m, m) - m)
    if padding is not None:
        i, f = i.masked_fill(padding, 0), f.masked_fill(padding, 1)
    c, n = diagonal_scan(f, i * z, carry.c), diagonal_scan(f, i, carry.n)
    if padding is not None:
        z, o = z.masked_fill(padding, torch.nan), o.masked_fill(padding, torch.nan)
    return SLSTMTrace(i, f, z, o, c, n, m, read)


def random_signals(
    batch: int,
    time: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    input: int = 3,
    hidden: int = 5,
    heads: int = 1,
) -> SLSTMSignals:
    """Standard normal inputs and biases, weights of variance 1/fan-in."""
    return SLSTMSignals(
        *random_weights(4, batch, time, dtype=dtype, seed=seed, input=input, hidden=hidden, heads=heads)
    )


__all__ = [
    "EMPTY",
    "SLSTMCarry",
    "SLSTMSignals",
    "SLSTMTrace",
    "cell",
    "hold",
    "init_carry",
    "random_signals",
    "slstm_trace",
    "step",
    "widened",
]
