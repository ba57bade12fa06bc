"""Elementwise linear recurrences, real or complex: the definition.

    h_t = a_t * h_{t-1} + b_t

minGRU and minLSTM (Feng et al. 2024), LRU (Orvieto et al. 2023), S4D (Gu et al. 2022), S5 (Smith et al. 2023), RG-LRU
(De et al. 2024), HGRN (Qin et al. 2023) and GateLoop's diagonal case (Katsch 2023) differ in how they make a_t and
b_t, and in what they do with h_t.

Shape letters: batch, time, channels, n_readers. The read is h_t.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from strobe.kernels.diagonal.recurrence import diagonal_scan
from strobe.kernels.linear import Transition


class DiagonalCarry(NamedTuple):
    """`h` [batch, channels], real or complex."""

    h: Tensor


class DiagonalSignals(NamedTuple):
    """`a` (decay) and `b` (write), each [batch, time, channels]; a constant `a` is given expanded, which is free."""

    a: Tensor
    b: Tensor


def init_carry(signals: DiagonalSignals) -> DiagonalCarry:
    """h_0 = 0, in the dtype `a` and `b` promote to."""
    dtype = torch.promote_types(signals.a.dtype, signals.b.dtype)
    return DiagonalCarry(signals.b.new_zeros(signals.b.shape[0], signals.b.shape[2], dtype=dtype))


def step(signals: DiagonalSignals, carry: DiagonalCarry) -> tuple[DiagonalCarry, Tensor]:
    """One token: `a`, `b` [batch, channels]; the read is h_t [batch, channels]."""
    h = signals.a * carry.h + signals.b
    return DiagonalCarry(h), h


def reader(carry: DiagonalCarry, readers: Tensor) -> Tensor:
    """`readers` [n_readers, channels]: sum over channels of u * h_t, nothing conjugated; [batch, n_readers]."""
    return answer(carry.h, readers)


def answer(h: Tensor, readers: Tensor) -> Tensor:
    """Each reader times `h` [..., channels], summed over channels: [..., n_readers]."""
    dtype = torch.promote_types(h.dtype, readers.dtype)
    return h.to(dtype) @ readers.T.to(dtype)


def hold(signals: DiagonalSignals, mask: Tensor) -> DiagonalSignals:
    """a_t = 1 and b_t = 0 where `mask` [batch, time] is False."""
    padding = ~mask.bool().unsqueeze(-1)
    return DiagonalSignals(signals.a.masked_fill(padding, 1), signals.b.masked_fill(padding, 0))


def transition(signals: DiagonalSignals) -> Transition:
    """A_t = a_t and B_t = b_t, [batch, time, channels]."""
    return Transition(decay=signals.a, value=signals.b)


def attention(signals: DiagonalSignals) -> Tensor:
    """E[t, s] = a_{s+1} ... a_t for s <= t: how much of b_s is in h_t. [batch, channels, time, time]."""
    batch, time, channels = signals.b.shape
    b = torch.eye(time, dtype=signals.a.dtype, device=signals.a.device)[:, None].expand(batch, time, channels, time)
    return diagonal_scan(signals.a.unsqueeze(-1), b, b.new_zeros(batch, channels, time)).transpose(1, 2)


def random_signals(
    batch: int, time: int, *, dtype: torch.dtype = torch.float32, seed: int = 0, channels: int = 5
) -> DiagonalSignals:
    """Decays of magnitude 0.5 to 1 (of any phase where `dtype` is complex), standard normal writes."""
    generator = torch.Generator().manual_seed(seed)
    shape = batch, time, channels
    a = 0.5 + 0.5 * torch.rand(shape, generator=generator, dtype=torch.float64)
    if dtype.is_complex:
        a = torch.polar(a, 2 * torch.pi * torch.rand(shape, generator=generator, dtype=torch.float64))
    b = torch.randn(shape, generator=generator, dtype=torch.complex128 if dtype.is_complex else torch.float64)
    return DiagonalSignals(a.to(dtype), b.to(dtype))
