"""Families that are linear in their carry: the operator of one token, and which earlier token each read came from.

The memory (the carry's first field, M) of a linear family follows

    M_t = A_t M_{t-1} + B_t                       read_t = sum_s E[t, s] v_s + (what M_0 contributes)

`Family.transition(signals)` returns A_t and B_t of every token as a `Transition`. It is built only from operations
that keep all leading axes, so signals without the time axis (`Family.at`) give the transition of one token.
Timescales, retention, memory horizon and the fixed point under a held token follow from it.

`Family.attention(signals)` returns E, the *effective attention*, [batch, heads, time (query), time (key)], in the
convention of the family's `v`: E[t, s] multiplies v_s of that head (`v` is the signal that enters the write linearly:
`v` of decay, delta and wkv, `x` of selective, the write `b` of diagonal). E[t, s] is 0 for s > t. A family whose units
do not mix (diagonal, selective, wkv) has its channels as heads. E may be complex where the decay is.
Where a read divides by a normaliser (wkv), E is divided too, so that its rows sum to one from an empty carry.

Which families fill which: `decay` and `delta` both; `diagonal` and `selective` both (with ``key=None`` and
``left=right=None``); `wkv` `attention` only, because its stored numerator is relative to a running maximum.
The others are not linear and leave both None.

What the carry given at the start contributes to the reads needs no second formula: scan with `v` set to zero.

Shape letters: batch, time, heads, key, value, rank; memory = the trailing axes of the family's first carry field,
[heads, key, value] for a matrix, [channels] or [channels, state] for a diagonal one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from strobe.kernels.scan import Backend, Family, Signals


class Transition(NamedTuple):
    """A_t and B_t of M_t = A_t M_{t-1} + B_t, factored as the family has them. Leading axes are [batch, time].

    A_t M = (1 + left_t right_t^T) (decay_t * M), the decay first; the low-rank part acts on the memory's second-to-last
    axis (key). B_t = key_t value_t^T, or `value` itself where `key` is None.
    """

    decay: Tensor
    """[batch, time, ...], broadcasts against the memory: [batch, time, heads, 1 or key, 1]; [batch, time, channels]"""
    value: Tensor
    """[batch, time, heads, value]; without `key` the whole write, broadcasting against the memory"""
    key: Tensor | None = None
    """[batch, time, heads, key]"""
    left: Tensor | None = None
    """[batch, time, heads, key, rank]"""
    right: Tensor | None = None
    """[batch, time, heads, key, rank]"""

    def apply(self, memory: Tensor) -> Tensor:
        """A_t M, for `memory` with this transition's leading axes (or axes that broadcast against them)."""
        decayed = self.decay * memory
        if self.left is None or self.right is None:
            return decayed
        return decayed + self.left @ (self.right.mT @ decayed)

    def write(self) -> Tensor:
        """B_t, dense: [batch, time, *memory]."""
        return self.value if self.key is None else self.key.unsqueeze(-1) * self.value.unsqueeze(-2)

    def operator(self, key: int) -> Tensor:
        """A_t of a matrix memory as a dense [batch, time, heads, key, key] matrix acting on the key axis."""
        return self.apply(torch.eye(key, dtype=self.decay.dtype, device=self.decay.device))


def transition(family: Family, signals: Signals) -> Transition:
    """A_t and B_t of every token. Raises ValueError for a family that is not linear in its carry."""
    if family.transition is None:
        raise ValueError(
            f"a transition was asked for, but the family {family.name!r} gives none (its carry is not linear); "
            "linearise its `step` with torch.func.jacrev instead"
        )
    return family.transition(signals)


def effective_attention(family: Family, signals: Signals) -> Tensor:
    """E with read_t = sum_s E[t, s] v_s from an empty carry: [batch, heads, time (query), time (key)].

    Memory is batch * heads * time**2. Raises ValueError for a family that has no such matrix.
    """
    if family.attention is None:
        raise ValueError(
            f"effective attention was asked for, but the family {family.name!r} has none (its read is not linear); "
            "use a gradient of the read with respect to the signals instead"
        )
    return family.attention(signals)


def attention_by_scan(backend: Backend, signals: Signals, carry: Signals) -> Tensor:
    """Effective attention of any family whose read is linear in `v`, by scanning one-hot values.

    With v_s the s-th unit vector, the read at t *is* the row E[t, :]. `signals.v` [batch, time, heads, value] is
    replaced, `carry` is an empty carry whose value axis is `time` long. Exact up to rounding.
    """
    batch, time, heads, _ = signals.v.shape
    one_hot = torch.eye(time, dtype=signals.v.dtype, device=signals.v.device)
    values = one_hot[:, None, :].expand(batch, time, heads, time)
    return backend(signals._replace(v=values), carry, [], None).read.transpose(1, 2)
