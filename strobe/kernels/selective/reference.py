"""The selective state space of Mamba-1 (Gu & Dao 2023, "Mamba", eq. 2 and algorithm 2): the definition.

    h_t = exp(delta_t A) * h_{t-1} + (delta_t x_t) B_t      [channels, state], A diagonal: its own A for each entry
    y_t = h_t C_t                                           [channels]

The write is the paper's simplified (Euler) discretisation of B, as its code has it. `delta` is given after its
softplus; the skip D x_t and the gate are the mixer's.

Shape letters: batch, time, channels (d_inner), state (d_state), n_readers. The read is y_t.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from strobe.kernels.chunks import work_dtype
from strobe.kernels.diagonal.recurrence import diagonal_scan
from strobe.kernels.linear import Transition


class SelectiveCarry(NamedTuple):
    """`h` [batch, channels, state]."""

    h: Tensor


class SelectiveSignals(NamedTuple):
    """`A` (negative) is a constant. Computed and returned in the widest dtype given, at least float32."""

    x: Float[Tensor, "batch time channels"]
    delta: Float[Tensor, "batch time channels"]
    B: Float[Tensor, "batch time state"]
    C: Float[Tensor, "batch time state"]
    A: Float[Tensor, "channels state"]


def init_carry(signals: SelectiveSignals) -> SelectiveCarry:
    """h_0 = 0."""
    return SelectiveCarry(signals.A.new_zeros(signals.x.shape[0], *signals.A.shape, dtype=work_dtype(*signals)))


def step(signals: SelectiveSignals, carry: SelectiveCarry) -> tuple[SelectiveCarry, Tensor]:
    """One token: `x`, `delta` [batch, channels], `B`, `C` [batch, state]; the read is y_t [batch, channels]."""
    x, delta, B, C, A = (s.to(work_dtype(*signals)) for s in signals)
    h = torch.exp(delta.unsqueeze(-1) * A) * carry.h + (delta * x).unsqueeze(-1) * B.unsqueeze(-2)
    return SelectiveCarry(h), (h * C.unsqueeze(-2)).sum(-1)


def reader(carry: SelectiveCarry, readers: Tensor) -> Tensor:
    """What `readers` answer in the place of C_t: [batch, n_readers, channels].

    `readers` is [n_readers, state], one vector for all channels, or [n_readers, channels, state], one for each.
    """
    readers = readers if readers.ndim == 3 else readers.unsqueeze(1)
    return (carry.h.unsqueeze(1) * readers.to(carry.h.dtype)).sum(-1)


def hold(signals: SelectiveSignals, mask: Tensor) -> SelectiveSignals:
    """delta_t = 0 where `mask` [batch, time] is False: exp(0 A) = 1 and nothing is written."""
    return signals._replace(delta=signals.delta.masked_fill(~mask.bool().unsqueeze(-1), 0))


def transition(signals: SelectiveSignals) -> Transition:
    """A_t = exp(delta_t A) and B_t = (delta_t x_t) B_t, each [batch, time, channels, state]."""
    decay = torch.exp(signals.delta.unsqueeze(-1) * signals.A)
    return Transition(decay=decay, value=(signals.delta * signals.x).unsqueeze(-1) * signals.B.unsqueeze(-2))


def attention(signals: SelectiveSignals) -> Tensor:
    """E[t, s], how much of x_s is in y_t: [batch, channels, time, time] (Ali et al. 2024, "The hidden attention of
    Mamba models", eq. 12).

    One diagonal scan of unit writes for each entry of the state, so that the memory is twice that of the answer. For
    some channels only, give signals with only these (`x`, `delta` [..., chosen], `A` [chosen, state]).
    """
    batch, time, channels = signals.x.shape
    unit = torch.eye(time, dtype=work_dtype(*signals), device=signals.x.device)[:, None]
    start = unit.new_zeros(batch, channels, time)
    total: Tensor | float = 0.0
    for n in range(signals.A.shape[1]):
        decay = torch.exp(signals.delta * signals.A[:, n]).unsqueeze(-1)
        write = (signals.delta * signals.B[..., n : n + 1]).unsqueeze(-1) * unit
        total = total + diagonal_scan(decay, write, start) * signals.C[..., n, None, None]
    return torch.as_tensor(total).transpose(1, 2)


def random_signals(
    batch: int, time: int, *, dtype: torch.dtype = torch.float32, seed: int = 0, channels: int = 5, state: int = 4
) -> SelectiveSignals:
    """x, B and C standard normal; delta log-uniform from 0.01 to 1: weak and strong decays; A = -(1, ..., state)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    spread = torch.rand(batch, time, channels, generator=generator, dtype=torch.float64)
    A = -torch.arange(1.0, state + 1, dtype=torch.float64).expand(channels, state)
    return SelectiveSignals(
        x=normal(batch, time, channels),
        delta=(0.01 * 100**spread).to(dtype),
        B=normal(batch, time, state),
        C=normal(batch, time, state),
        A=A.contiguous().to(dtype),
    )
