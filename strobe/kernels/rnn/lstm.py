"""Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000): the definition.

    i_t = sigmoid(W_i x_t + R_i h_{t-1} + b_i)
    f_t = sigmoid(W_f x_t + R_f h_{t-1} + b_f)
    g_t = tanh(W_g x_t + R_g h_{t-1} + b_g)
    o_t = sigmoid(W_o x_t + R_o h_{t-1} + b_o)
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

W = [W_i; W_f; W_g; W_o], and so on: torch's gate order. `b` is the sum of torch's two biases.

R is dense or block-diagonal by head (`strobe.kernels.rnn.blocks`).

Shape letters: batch, time, input (size of x_t), hidden (size of h_t and c_t), dim (of a head; hidden where R is
dense), n_readers. The read is h_t.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from strobe.kernels.diagonal.recurrence import diagonal_scan
from strobe.kernels.rnn.autocast import outside_autocast
from strobe.kernels.rnn.blocks import recurrent
from strobe.kernels.rnn.mask import before, hold, keep, random_weights


class LSTMCarry(NamedTuple):
    """`h` and `c`, each [batch, hidden]."""

    h: Tensor
    c: Tensor


class LSTMSignals(NamedTuple):
    """`W`, `R`, `b` are constants; a False in `mask` is padding."""

    x: Float[Tensor, "batch time input"]
    W: Float[Tensor, "4*hidden input"]
    R: Float[Tensor, "4*hidden dim"]
    b: Float[Tensor, " 4*hidden"]
    mask: Bool[Tensor, "batch time"] | None = None


class LSTMTrace(NamedTuple):
    """Everything the cell computed, each [batch, time, hidden]: gates `i`, `f`, `o`, candidate `g`, `c` and `h`."""

    i: Tensor
    f: Tensor
    g: Tensor
    o: Tensor
    c: Tensor
    h: Tensor


def init_carry(signals: LSTMSignals) -> LSTMCarry:
    """h_0 = c_0 = 0."""
    zeros = signals.R.new_zeros(signals.x.shape[0], signals.R.shape[0] // 4)
    return LSTMCarry(zeros, zeros.clone())


@outside_autocast
def step(signals: LSTMSignals, carry: LSTMCarry) -> tuple[LSTMCarry, Tensor]:
    """One token: `signals.x` [batch, input], `signals.mask` [batch]; the read is h_t [batch, hidden]."""
    i, f, g, o = (F.linear(signals.x, signals.W, signals.b) + recurrent(carry.h, signals.R, 4)).chunk(4, -1)
    c = torch.sigmoid(f) * carry.c + torch.sigmoid(i) * torch.tanh(g)
    carry = keep(signals.mask, LSTMCarry(torch.sigmoid(o) * torch.tanh(c), c), carry)
    return carry, carry.h


@outside_autocast
def lstm_trace(signals: LSTMSignals, carry: LSTMCarry, read: Tensor) -> LSTMTrace:
    """Gates, `c` and `h` of every token from the `read` [batch, time, hidden] of a scan that began at `carry`.

    The library kernels return h alone. Given h the gates are one GEMM, and given the gates c is a diagonal
    recurrence, so nothing is looped over that depends on the weights. At a padded token the cell holds: f = 1, i = 0,
    and `g` and `o` are NaN because none were computed.
    """
    pre = torch.addmm(
        recurrent(before(carry.h, read), signals.R, 4).flatten(0, 1), signals.x.flatten(0, 1), signals.W.T
    ).add_(signals.b)
    i, f, g, o = pre.unflatten(0, read.shape[:2]).chunk(4, -1)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    if signals.mask is None:
        return LSTMTrace(i, f, g, o, diagonal_scan(f, i * g, carry.c), read)
    padding = ~signals.mask.unsqueeze(-1)
    i, f = i.masked_fill(padding, 0), f.masked_fill(padding, 1)
    c = diagonal_scan(f, i * g, carry.c)
    return LSTMTrace(i, f, g.masked_fill(padding, torch.nan), o.masked_fill(padding, torch.nan), c, read)


def random_signals(
    batch: int,
    time: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    input: int = 3,
    hidden: int = 5,
    heads: int = 1,
) -> LSTMSignals:
    """Standard normal inputs and biases, weights of variance 1/fan-in."""
    return LSTMSignals(*random_weights(4, batch, time, dtype=dtype, seed=seed, input=input, hidden=hidden, heads=heads))


__all__ = ["LSTMCarry", "LSTMSignals", "LSTMTrace", "hold", "init_carry", "lstm_trace", "random_signals", "step"]
