"""Matrix state with decay: the definition.

    S_t = diag(alpha_t) S_{t-1} + k_t v_t^T          alpha_t = exp(log_decay_t)
    y_t = S_t^T q_t                                  the read, after the write

Members (q, k, v, log_decay):
- RetNet (Sun et al., 2023, arXiv:2307.08621, eq. 6) and Lightning Attention (Qin et al., 2024, arXiv:2401.04658):
  alpha constant per head.
- Mamba-2 / SSD (Dao & Gu, 2024, arXiv:2405.21060, eq. 16-17): q = C, k = B, v = dt * x, log_decay = dt * A, one B and C
  for all heads of a group.
- GLA (Yang et al., 2023, arXiv:2312.06635, eq. 3): alpha per key channel; q carries the scale key**-0.5.
- HGRN2 (Qin et al., 2024, arXiv:2404.07904): alpha per key channel, k = 1 - alpha.
- RWKV-5 and 6 (Peng et al., 2024, arXiv:2404.05892): the same S; their read is y_t = S_{t-1}^T q_t plus a bonus of the
  current token, so the mixer scans with q shifted or corrects the read by (q_t . k_t) v_t terms.
- mLSTM (Beck et al., 2024, arXiv:2405.04517): with the stabilised gates as log_decay and inside k; the normaliser n is
  one more value channel of ones.

Shape letters: batch, time, groups (of heads that share q and k; head h belongs to group h // (heads / groups)), heads,
key, value. Carry hooks hold S as it crosses to the next token: decayed by alpha_t and already written by token t.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from strobe.kernels.chunks import to_heads, work_dtype
from strobe.kernels.linear import Transition
from strobe.kernels.reference import loop


class DecaySignals(NamedTuple):
    """Signals of the `decay` family; `groups` divides `heads`."""

    q: Tensor
    """[batch, time, groups, key]"""
    k: Tensor
    """[batch, time, groups, key]"""
    v: Tensor
    """[batch, time, heads, value]"""
    log_decay: Tensor
    """[batch, time, heads], one decay per head, or [batch, time, heads, key], one per key channel; usually <= 0"""


class DecayCarry(NamedTuple):
    """Carry of the `decay` family."""

    S: Tensor
    """[batch, heads, key, value], float32 at least"""


def init_carry(signals: DecaySignals) -> DecayCarry:
    """An empty memory for `signals` (with or without the time axis), float32 at least."""
    batch, heads, value = signals.v.shape[0], *signals.v.shape[-2:]
    dtype = work_dtype(signals.v)
    return DecayCarry(torch.zeros(batch, heads, signals.k.shape[-1], value, dtype=dtype, device=signals.v.device))


def step(signals: DecaySignals, carry: DecayCarry) -> tuple[DecayCarry, Tensor]:
    """One token: (carry after it, read [batch, heads, value]), in the carry's dtype or a wider one.

    Written with products and sums, which autocast leaves in float32, instead of matrix products, which it does not.
    """
    dtype = work_dtype(carry.S, signals.v)
    q, k, v, log_decay = (x.to(dtype) for x in signals)
    heads = v.shape[-2]
    alpha = log_decay.exp().reshape(*log_decay.shape[:2], -1, 1)
    S = alpha * carry.S.to(dtype) + to_heads(k, heads).unsqueeze(-1) * v.unsqueeze(-2)
    return DecayCarry(S), (S * to_heads(q, heads).unsqueeze(-1)).sum(-2)


def reader(carry: DecayCarry, readers: Tensor) -> Tensor:
    """u^T S for `readers` u, [n_readers, heads, key] or [n_readers, key]: [batch, n_readers, heads, value]."""
    S = carry.S.unsqueeze(1)
    u = readers.to(S.dtype)
    if u.ndim == 2:
        u = u.unsqueeze(1)
    return (S * u.unsqueeze(-1)).sum(-2)


def hold(signals: DecaySignals, mask: Tensor) -> DecaySignals:
    """Signals under which S passes unchanged where ``mask`` [batch, time] is False: no decay and no write."""
    gone = ~mask.bool()[..., None, None]
    log_decay = signals.log_decay.masked_fill(gone[..., 0] if signals.log_decay.ndim == 3 else gone, 0)
    return signals._replace(k=signals.k.masked_fill(gone, 0), v=signals.v.masked_fill(gone, 0), log_decay=log_decay)


def transition(signals: DecaySignals) -> Transition:
    """A_t = diag(alpha_t) and B_t = k_t v_t^T; see `strobe.kernels.linear`."""
    dtype, heads = work_dtype(signals.v), signals.v.shape[-2]
    _, k, v, log_decay = (x.to(dtype) for x in signals)
    per_channel = log_decay.ndim == v.ndim
    alpha = log_decay.exp().unsqueeze(-1) if per_channel else log_decay.exp()[..., None, None]
    return Transition(decay=alpha, value=v, key=to_heads(k, heads))


def random_signals(
    batch: int,
    time: int,
    *,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    groups: int = 2,
    heads: int = 4,
    key: int = 8,
    value: int = 6,
    per_channel: bool = False,
) -> DecaySignals:
    """Standard normal q, k, v and decays between exp(-1) and 1, drawn in float64: each dtype has the same signals."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    q, k = normal(batch, time, groups, key), normal(batch, time, groups, key)
    v = normal(batch, time, heads, value)
    sizes = (batch, time, heads, key) if per_channel else (batch, time, heads)
    log_decay = -torch.rand(*sizes, generator=g, dtype=torch.float64)
    return DecaySignals(*(x.to(dtype) for x in (q, k, v, log_decay)))


reference = loop(step, reader)
