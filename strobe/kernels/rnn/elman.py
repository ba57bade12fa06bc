"""The Elman network (Elman 1990, "Finding structure in time", with tanh): the definition.

    a_t = W x_t + R h_{t-1} + b
    h_t = tanh(a_t)

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


class ElmanCarry(NamedTuple):
    """`h` [batch, hidden]."""

    h: Tensor


class ElmanSignals(NamedTuple):
    """`W`, `R` and `b` are constants; a False in `mask` is padding."""

    x: Float[Tensor, "batch time input"]
    W: Float[Tensor, "hidden input"]
    R: Float[Tensor, "hidden dim"]
    b: Float[Tensor, " hidden"]
    mask: Bool[Tensor, "batch time"] | None = None


class ElmanTrace(NamedTuple):
    """Everything the cell computed, each [batch, time, hidden]: pre-activation `a` and `h`."""

    a: Tensor
    h: Tensor


def init_carry(signals: ElmanSignals) -> ElmanCarry:
    """h_0 = 0."""
    return ElmanCarry(signals.R.new_zeros(signals.x.shape[0], signals.R.shape[0]))


@outside_autocast
def step(signals: ElmanSignals, carry: ElmanCarry) -> tuple[ElmanCarry, Tensor]:
    """One token: `signals.x` [batch, input], `signals.mask` [batch]; the read is h_t [batch, hidden]."""
    h = torch.tanh(F.linear(signals.x, signals.W, signals.b) + recurrent(carry.h, signals.R, 1))
    carry = keep(signals.mask, ElmanCarry(h), carry)
    return carry, carry.h


@outside_autocast
def elman_trace(signals: ElmanSignals, carry: ElmanCarry, read: Tensor) -> ElmanTrace:
    """`a` and `h` of every token from the `read` [batch, time, hidden] of a scan that began at `carry`: two GEMMs.

    At a padded token the cell holds: h_t = h_{t-1}, and `a` is NaN because none was computed.
    """
    a = F.linear(signals.x, signals.W, signals.b) + recurrent(before(carry.h, read), signals.R, 1)
    if signals.mask is not None:
        a = a.masked_fill(~signals.mask.unsqueeze(-1), torch.nan)
    return ElmanTrace(a, read)


def random_signals(
    batch: int,
    time: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    input: int = 3,
    hidden: int = 5,
    heads: int = 1,
) -> ElmanSignals:
    """Standard normal inputs and weights of variance 1/fan-in."""
    return ElmanSignals(
        *random_weights(1, batch, time, dtype=dtype, seed=seed, input=input, hidden=hidden, heads=heads)
    )


__all__ = [
    "ElmanCarry",
    "ElmanSignals",
    "ElmanTrace",
    "elman_trace",
    "hold",
    "init_carry",
    "random_signals",
    "step",
]
