"""The gated recurrent unit (Cho et al. 2014), as torch and cuDNN define it: the definition.

    r_t = sigmoid(W_r x_t + b_r  + R_r h_{t-1} + b'_r)
    z_t = sigmoid(W_z x_t + b_z  + R_z h_{t-1} + b'_z)
    n_t = tanh(W_n x_t + b_n + r_t * (R_n h_{t-1} + b'_n))
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}

W = [W_r; W_z; W_n], and so on: gates in the order r, z, n. The reset gate is applied after R_n, not to h before it
(Cho et al. eq. 8 has the latter; cuDNN and torch the former). `b_r` is b', the recurrent bias of all three gates.

R is dense or block-diagonal by head (`strobe.kernels.rnn.blocks`).

Shape letters: batch, time, input (size of x_t), hidden (size of h_t), dim (of a head; hidden where R is dense),
n_readers. The read is h_t.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from strobe.kernels.rnn.autocast import outside_autocast
from strobe.kernels.rnn.blocks import recurrent
from strobe.kernels.rnn.mask import before, hold, keep, random_weights


class GRUCarry(NamedTuple):
    """`h` [batch, hidden]."""

    h: Tensor


class GRUSignals(NamedTuple):
    """`W`, `R`, `b`, `b_r` (the recurrent bias) are constants; a False in `mask` is padding."""

    x: Float[Tensor, "batch time input"]
    W: Float[Tensor, "3*hidden input"]
    R: Float[Tensor, "3*hidden dim"]
    b: Float[Tensor, " 3*hidden"]
    b_r: Float[Tensor, " 3*hidden"]
    mask: Bool[Tensor, "batch time"] | None = None


class GRUTrace(NamedTuple):
    """Everything the cell computed, each [batch, time, hidden]: reset gate `r`, update gate `z`, candidate `n`, `h`."""

    r: Tensor
    z: Tensor
    n: Tensor
    h: Tensor


def init_carry(signals: GRUSignals) -> GRUCarry:
    """h_0 = 0."""
    return GRUCarry(signals.R.new_zeros(signals.x.shape[0], signals.R.shape[0] // 3))


def _gates(signals: GRUSignals, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x_r, x_z, x_n = F.linear(signals.x, signals.W, signals.b).chunk(3, -1)
    h_r, h_z, h_n = (recurrent(h, signals.R, 3) + signals.b_r).chunk(3, -1)
    r = torch.sigmoid(x_r + h_r)
    return r, torch.sigmoid(x_z + h_z), torch.tanh(torch.addcmul(x_n, r, h_n))


@outside_autocast
def step(signals: GRUSignals, carry: GRUCarry) -> tuple[GRUCarry, Tensor]:
    """One token: `signals.x` [batch, input], `signals.mask` [batch]; the read is h_t [batch, hidden]."""
    _, z, n = _gates(signals, carry.h)
    carry = keep(signals.mask, GRUCarry((1 - z) * n + z * carry.h), carry)
    return carry, carry.h


@outside_autocast
def gru_trace(signals: GRUSignals, carry: GRUCarry, read: Tensor) -> GRUTrace:
    """Gates and `h` of every token from the `read` [batch, time, hidden] of a scan that began at `carry`: two GEMMs.

    At a padded token the cell holds: z = 1, r = 0, and `n` is NaN because none was computed.
    """
    r, z, n = _gates(signals, before(carry.h, read))
    if signals.mask is not None:
        padding = ~signals.mask.unsqueeze(-1)
        r, z, n = r.masked_fill(padding, 0), z.masked_fill(padding, 1), n.masked_fill(padding, torch.nan)
    return GRUTrace(r, z, n, read)


def random_signals(
    batch: int,
    time: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    input: int = 3,
    hidden: int = 5,
    heads: int = 1,
) -> GRUSignals:
    """Standard normal inputs and biases, weights of variance 1/fan-in."""
    x, W, R, b = random_weights(3, batch, time, dtype=dtype, seed=seed, input=input, hidden=hidden, heads=heads)
    b_r = random_weights(3, 0, 0, dtype=dtype, seed=seed + 1, input=input, hidden=hidden, heads=heads)[3]
    return GRUSignals(x, W, R, b, b_r)


__all__ = ["GRUCarry", "GRUSignals", "GRUTrace", "gru_trace", "hold", "init_carry", "random_signals", "step"]
