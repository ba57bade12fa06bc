"""What the chunked backends of the matrix-state families share: decays inside a chunk, and heads.

Every exponential here is of a sum of log decays over tokens that lie *between* two tokens, never of its negative, so
nothing is divided by a decay that may have underflowed and nothing overflows while decays are at most one. The sums are
cumulated in float64: the difference of two cumulated sums is otherwise wrong by the rounding of the larger one, which
after a few strong decays (-30 each) is 1e-4 of the result.

Shape letters: batch, n (chunks), chunk (tokens in a chunk), heads, units = batch * heads, key, points (positions).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from strobe.kernels.chunk_layout import Layout

# exp of this is zero in the dtype, so a smaller log decay (also -inf, a reset) means the same and may be raised to it.
_LOG_OF_ZERO = {torch.float32: -110.0, torch.float64: -760.0}


def work_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype a scan computes in and returns: the widest one given, at least float32."""
    dtype = torch.float32
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def cumulate(log_decay: Tensor, axis: int, dtype: torch.dtype) -> Tensor:
    """Cumulated sum of log decays along `axis`, in float64; `dtype` is that of the decays made from it."""
    return log_decay.double().clamp(min=_LOG_OF_ZERO[dtype]).cumsum(axis)


def decay_of(log: Tensor) -> Tensor:
    """e^log, for logs down to -inf, as the square of e^(log / 2): where the result is below the smallest normal number
    a CPU's vector exp takes 30 to 80 times as long, and strong decays between distant tokens are that small."""
    root = (0.5 * log).clamp_(min=0.5 * _LOG_OF_ZERO[log.dtype]).exp_()
    return root * root


def pairwise_decay(cumulated: Tensor, dtype: torch.dtype) -> Tensor:
    """[..., chunk] -> D [..., chunk (t), chunk (s)], the product of the decays after s up to t; 0 for s > t."""
    # Cut before the exp, which could overflow for s > t, and after it, as it makes ones of zeros.
    return decay_of((cumulated.unsqueeze(-1) - cumulated.unsqueeze(-2)).to(dtype).tril_()).tril_()


class ChunkDecay(NamedTuple):
    """The decays between any two tokens of a chunk, made by `chunk_decay`; two axes in front, [n, units]."""

    cumulated: Tensor
    """[n, units, chunk, 1 or key], float64"""
    from_start: Tensor
    """[n, units, chunk, 1 or key], from the carry at the chunk's start up to the token"""
    to_end: Tensor
    """[n, units, chunk, 1 or key], after the token up to the chunk's last"""
    pairs: Tensor | None
    """D [n, units, chunk (t), chunk (s)], one decay per head"""
    halves: list[tuple[Tensor, Tensor]]
    """One decay per key channel: for blocks of 2, 4, ... tokens, the decays after each token of the first half up to
    its end, and from the middle up to each token of the second half: each [n, units, blocks, half, key]"""

    def gram(self, x: Tensor, y: Tensor) -> Tensor:
        """M[t, s] = sum_key x_t y_s (product of the decays after s up to t), 0 for s > t: [..., chunk, chunk].

        `x` and `y` are [..., chunk, key] and broadcast in front. One decay per head multiplies x y^T. One per channel
        cannot be pulled out of the sum: a pair (t, s) is treated at the level where t and s lie in the two halves of a
        block, y_s taking the decays before the middle and x_t those after it. Neither can overflow, as e^{-G_s} of the
        usual factoring can, and each level is one batched matrix product.
        """
        if self.pairs is not None:
            return (x @ y.mT) * self.pairs
        gram = (x * y).sum(-1)[..., None, None]  # [..., blocks, 1, 1]
        for before, after_middle in self.halves:
            blocks = (-1, 2, before.shape[-2])
            late = x.unflatten(-2, blocks)[..., 1, :, :] * after_middle
            early = y.unflatten(-2, blocks)[..., 0, :, :] * before
            pair = gram.unflatten(-3, (-1, 2))
            top = F.pad(pair[..., 0, :, :], (0, before.shape[-2]))
            gram = torch.cat([top, torch.cat([late @ early.mT, pair[..., 1, :, :]], -1)], -2)
        return gram.squeeze(-3)

    def until(self, which: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        """For token `here` of chunk `which`, both [points]: the decays from the chunk's start up to it, [points, units,
        1, 1 or key], and those after each token up to it, 0 for later tokens, [points, units, chunk, 1 or key].
        """
        dtype = self.from_start.dtype
        up_to = self.cumulated[which, :, here].unsqueeze(-2)
        later = after(here, self.cumulated.shape[-2])[:, None, :, None]
        between = (up_to - self.cumulated.index_select(0, which)).to(dtype).masked_fill(later, -torch.inf)
        return decay_of(up_to.to(dtype)), decay_of(between)


def chunk_decay(log_decay: Tensor) -> ChunkDecay:
    """The decays inside chunks, from `log_decay` [n, units, chunk, 1 or key]; chunk is a power of two."""
    dtype = log_decay.dtype
    cumulated = cumulate(log_decay, -2, dtype)
    from_start = decay_of(cumulated.to(dtype))
    to_end = decay_of((cumulated[..., -1:, :] - cumulated).to(dtype))
    if log_decay.shape[-1] == 1:
        return ChunkDecay(cumulated, from_start, to_end, pairwise_decay(cumulated.squeeze(-1), dtype), [])
    halves, half = [], 1
    while half < log_decay.shape[-2]:
        sums = cumulated.unflatten(-2, (-1, 2, half))
        middle = sums[..., 0, -1:, :]
        before, after_middle = middle - sums[..., 0, :, :], sums[..., 1, :, :] - middle
        halves.append((decay_of(before.to(dtype)), decay_of(after_middle.to(dtype))))
        half *= 2
    return ChunkDecay(cumulated, from_start, to_end, None, halves)


def by_head(x: Tensor, heads: int, layout: Layout, dtype: torch.dtype) -> Tensor:
    """[batch, time, heads or groups, size] as [n, units, chunk, size], contiguous, so that a chunk is a slice."""
    x = layout.to_chunks(to_heads(x, heads), dtype)
    return x.permute(1, 0, 3, 2, 4).contiguous().flatten(1, 2)


def by_time(x: Tensor, batch: int, layout: Layout) -> Tensor:
    """[n, units, chunk, size] as [batch, time, heads, size]."""
    return layout.to_time(x.unflatten(1, (batch, -1)).permute(1, 0, 3, 2, 4))


def after(here: Tensor, chunk: int) -> Tensor:
    """[points, chunk]: True for the tokens of the chunk that come after the point."""
    return torch.arange(chunk, device=here.device) > here.unsqueeze(-1)


def reader_rows(readers: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """`readers` as [n_readers, heads, key]."""
    u = readers.to(dtype)
    return u.unsqueeze(1).expand(-1, heads, -1) if u.ndim == 2 else u


def heads_per_group(heads: int, groups: int) -> int:
    """How many heads share one q and k. Raises ValueError where `groups` does not divide `heads`."""
    if heads % groups:
        raise ValueError(
            f"{groups} groups cannot share {heads} heads; give q, k or b a number of groups that divides it"
        )
    return heads // groups


def to_heads(x: Tensor, heads: int) -> Tensor:
    """[..., groups, key] with each group repeated for its heads: [..., heads, key]."""
    return x if x.shape[-2] == heads else x.repeat_interleave(heads_per_group(heads, x.shape[-2]), -2)
