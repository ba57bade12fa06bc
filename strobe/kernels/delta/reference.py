"""Matrix state with decay and a low-rank correction: the definition.

    S_t = (I + a_t b_t^T) diag(alpha_t) S_{t-1} + k_t v_t^T          alpha_t = exp(log_decay_t)
    y_t = S_t^T q_t                                                   the read, after the write

The decay comes first, the low-rank part acts on what is left. Where `a` is None it is -k, the *delta rule*: S_t writes
k_t (v_t - b_t^T diag(alpha_t) S_{t-1})^T, the value minus what the memory already answers to b_t.

Members (their key k', normalised; beta in (0, 1); the decay):
- DeltaNet (Schlag et al., 2021, arXiv:2102.11174, eq. 24; Yang et al., 2024, arXiv:2406.06484, eq. 1):
  k = beta k', b = k', a = None, log_decay = 0.
- Gated DeltaNet (Yang et al., 2024, arXiv:2412.06464, eq. 10): the same with one log_decay per head.
- KDA (Kimi Linear, 2025, arXiv:2510.26692): the same with one log_decay per key channel.
- RWKV-7 (Peng et al., 2025, arXiv:2503.14456, eq. 17), S there is [value, key], ours its transpose: with removal key
  kappa (normalised) and in-context rate eta per channel, S_t = (diag(w) - (kappa * eta) kappa^T) S_{t-1} + k v^T, where
  nothing is decayed in front of kappa^T: b = kappa / w (finite, w > 0.54), a = -kappa * eta, log_decay = log w.
- DeltaProduct (Siems et al., 2025, arXiv:2502.10297): n_h of these tokens for each real one, log_decay = 0 but for the
  first, the read taken after the last.

Shape letters: batch, time, groups (head h belongs to group h // (heads / groups)), heads, key, value. Carry hooks hold
S as it crosses to the next token: decayed, corrected and written by token t.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from strobe.kernels.chunks import to_heads, work_dtype
from strobe.kernels.linear import Transition
from strobe.kernels.reference import loop


class DeltaSignals(NamedTuple):
    """Signals of the `delta` family; `groups` divides `heads`."""

    q: Tensor
    """[batch, time, groups, key]"""
    k: Tensor
    """[batch, time, heads, key], times the write strength beta where there is one"""
    v: Tensor
    """[batch, time, heads, value]"""
    log_decay: Tensor
    """[batch, time, heads], one decay per head, or [batch, time, heads, key], one per key channel; usually <= 0"""
    a: Tensor | None
    """[batch, time, heads, key]; None means -k, which is cheaper than passing -k"""
    b: Tensor
    """[batch, time, groups or heads, key]"""


class DeltaCarry(NamedTuple):
    """Carry of the `delta` family."""

    S: Tensor
    """[batch, heads, key, value], float32 at least"""


def init_carry(signals: DeltaSignals) -> DeltaCarry:
    """An empty memory for `signals` (with or without the time axis), float32 at least."""
    batch, heads, value = signals.v.shape[0], *signals.v.shape[-2:]
    dtype = work_dtype(signals.v)
    return DeltaCarry(torch.zeros(batch, heads, signals.k.shape[-1], value, dtype=dtype, device=signals.v.device))


def step(signals: DeltaSignals, carry: DeltaCarry) -> tuple[DeltaCarry, Tensor]:
    """One token: (carry after it, read [batch, heads, value]), in the carry's dtype or a wider one.

    Written with products and sums, which autocast leaves in float32, instead of matrix products, which it does not.
    """
    dtype, heads = work_dtype(carry.S, signals.v), signals.v.shape[-2]
    q, k, v, log_decay, b = (x.to(dtype) for x in (signals.q, signals.k, signals.v, signals.log_decay, signals.b))
    decayed = log_decay.exp().reshape(*log_decay.shape[:2], -1, 1) * carry.S.to(dtype)
    answer = (decayed * to_heads(b, heads).unsqueeze(-1)).sum(-2, keepdim=True)
    if signals.a is None:
        S = decayed + k.unsqueeze(-1) * (v.unsqueeze(-2) - answer)
    else:
        S = decayed + signals.a.to(dtype).unsqueeze(-1) * answer + k.unsqueeze(-1) * v.unsqueeze(-2)
    return DeltaCarry(S), (S * to_heads(q, heads).unsqueeze(-1)).sum(-2)


def reader(carry: DeltaCarry, readers: Tensor) -> Tensor:
    """u^T S for `readers` u, [n_readers, heads, key] or [n_readers, key]: [batch, n_readers, heads, value]."""
    S = carry.S.unsqueeze(1)
    u = readers.to(S.dtype)
    if u.ndim == 2:
        u = u.unsqueeze(1)
    return (S * u.unsqueeze(-1)).sum(-2)


def hold(signals: DeltaSignals, mask: Tensor) -> DeltaSignals:
    """Signals under which S passes unchanged where ``mask`` [batch, time] is False: no decay, correction or write."""
    gone = ~mask.bool()[..., None, None]
    return signals._replace(
        k=signals.k.masked_fill(gone, 0),
        v=signals.v.masked_fill(gone, 0),
        log_decay=signals.log_decay.masked_fill(gone[..., 0] if signals.log_decay.ndim == 3 else gone, 0),
        a=None if signals.a is None else signals.a.masked_fill(gone, 0),
        b=signals.b.masked_fill(gone, 0),
    )


def transition(signals: DeltaSignals) -> Transition:
    """A_t = (I + a_t b_t^T) diag(alpha_t) and B_t = k_t v_t^T; see `strobe.kernels.linear`."""
    dtype, heads = work_dtype(signals.v), signals.v.shape[-2]
    k, v, log_decay, b = (x.to(dtype) for x in (signals.k, signals.v, signals.log_decay, signals.b))
    per_channel = log_decay.ndim == v.ndim
    alpha = log_decay.exp().unsqueeze(-1) if per_channel else log_decay.exp()[..., None, None]
    left = -k if signals.a is None else signals.a.to(dtype)
    return Transition(decay=alpha, value=v, key=k, left=left.unsqueeze(-1), right=to_heads(b, heads).unsqueeze(-1))


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
    delta_rule: bool = False,
) -> DeltaSignals:
    """Stable random signals: decays between exp(-1) and 1, |a| |b| < 1 or, as the delta rule, unit b and k = beta b.

    Drawn in float64, so that each dtype has the same signals.
    """
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def unit(*shape: int) -> Tensor:
        return torch.nn.functional.normalize(normal(*shape), dim=-1)

    q, v = normal(batch, time, groups, key), normal(batch, time, heads, value)
    strength = torch.rand(batch, time, heads, 1, generator=g, dtype=torch.float64)
    log_decay = -torch.rand(*((batch, time, heads, key) if per_channel else (batch, time, heads)), generator=g).double()
    b = unit(batch, time, groups, key)
    k = strength * to_heads(b, heads) if delta_rule else normal(batch, time, heads, key)
    a = None if delta_rule else (strength * unit(batch, time, heads, key)).to(dtype)
    return DeltaSignals(q.to(dtype), k.to(dtype), v.to(dtype), log_decay.to(dtype), a, b.to(dtype))


reference = loop(step, reader)
