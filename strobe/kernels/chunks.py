"""What the chunked backends of the matrix-state families share: cutting time into chunks, and decays inside a chunk.

Every exponential here is of a sum of log decays over tokens that lie *between* two tokens, never of its negative, so
nothing is divided by a decay that may have underflowed and nothing overflows while decays are at most one. The sums are
cumulated in float64: the difference of two cumulated sums is otherwise wrong by the rounding of the larger one, which
after a few strong decays (-30 each) is 1e-4 of the result.

Shape letters: batch, n (chunks), chunk (tokens in a chunk), heads, key.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# exp of this is zero in the dtype, so a smaller log decay (also -inf, a reset) means the same and may be raised to it.
_LOG_OF_ZERO = {torch.float32: -110.0, torch.float64: -760.0}


def work_dtype(*tensors: Tensor) -> torch.dtype:
    """The dtype a scan computes in and returns: the widest one given, at least float32."""
    dtype = torch.float32
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    return dtype


def chunk_length(time: int, longest: int) -> int:
    """The power of two that holds `time` tokens, at most `longest`."""
    return min(longest, 1 << max(time - 1, 0).bit_length())


def to_chunks(x: Tensor, chunk: int, dtype: torch.dtype) -> Tensor:
    """[batch, time, ...] as [batch, n, chunk, ...] in `dtype`, the last chunk filled up with zeros.

    A token of zeros writes nothing and, its log decay being zero, forgets nothing.
    """
    missing = -x.shape[1] % chunk
    if missing:
        x = F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))
    return x.to(dtype).unflatten(1, (-1, chunk))


def cumulate(log_decay: Tensor, axis: int, dtype: torch.dtype) -> Tensor:
    """Cumulated sum of log decays along `axis`, in float64; `dtype` is that of the decays made from it."""
    return log_decay.double().clamp(min=_LOG_OF_ZERO[dtype]).cumsum(axis)


def pairwise_decay(cumulated: Tensor, dtype: torch.dtype) -> Tensor:
    """[..., chunk] -> D [..., chunk (t), chunk (s)], the product of the decays after s up to t; 0 for s > t."""
    later = torch.full(cumulated.shape[-1:] * 2, -torch.inf, dtype=dtype, device=cumulated.device).triu(1)
    return (cumulated.unsqueeze(-1) - cumulated.unsqueeze(-2)).to(dtype).add(later).exp()


def decayed_gram(x: Tensor, y: Tensor, cumulated: Tensor) -> Tensor:
    """M[t, s] = sum_key x_t y_s (product of the key's decays after s up to t), 0 for s > t, for decays per channel.

    `x` [..., n_x, chunk, key], `y` [..., n_y, chunk, key] and `cumulated` [..., chunk, key] broadcast in front;
    chunk is a power of two. Returns [..., n_x, n_y, chunk, chunk].

    A pair (t, s) is treated at the level where t and s lie in the two halves of one block: the decay is the product
    of the part before the middle, taken by y_s, and the part after it, taken by x_t. Both are products of decays, so
    neither can overflow, and each level is one batched matmul.
    """
    chunk, dtype = x.shape[-2], x.dtype
    n_x, n_y = x.shape[-3], y.shape[-3]
    gram = torch.einsum("...xtk,...ytk->...txy", x, y).unsqueeze(-1).unsqueeze(-1)  # [..., blocks, n_x, n_y, 1, 1]
    gram = gram.expand(*cumulated.shape[:-2], *gram.shape[-5:])
    half = 1
    while half < chunk:
        halves = (-1, 2, half)
        sums = cumulated.unflatten(-2, halves)  # [..., blocks, 2, half, key]
        middle = sums[..., 0, -1:, :]
        before = (middle - sums[..., 0, :, :]).to(dtype).exp()
        after = (sums[..., 1, :, :] - middle).to(dtype).exp()
        late = x.unflatten(-2, halves)[..., 1, :, :] * after.unsqueeze(-4)  # [..., n_x, blocks, half, key]
        early = y.unflatten(-2, halves)[..., 0, :, :] * before.unsqueeze(-4)
        cross = late.movedim(-4, -3).flatten(-3, -2) @ early.movedim(-4, -3).flatten(-3, -2).mT
        cross = cross.unflatten(-1, (n_y, half)).unflatten(-3, (n_x, half)).transpose(-3, -2)
        pairs = gram.unflatten(-5, (-1, 2))
        top = F.pad(pairs[..., 0, :, :, :, :], (0, half))
        bottom = torch.cat([cross, pairs[..., 1, :, :, :, :]], -1)
        gram = torch.cat([top, bottom], -2)
        half *= 2
    return gram.squeeze(-5)


def locate(positions: list[int], chunk: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Chunk of each position and its place in that chunk."""
    at = torch.tensor(positions, device=device)
    return at // chunk, at % chunk


def after(here: Tensor, chunk: int) -> Tensor:
    """[points, chunk]: True for the tokens of the chunk that come after the point."""
    return torch.arange(chunk, device=here.device) > here.unsqueeze(-1)


def reader_rows(readers: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """`readers` as [n_readers, heads, key]."""
    u = readers.to(dtype)
    return u.unsqueeze(1).expand(-1, heads, -1) if u.ndim == 2 else u


def to_heads(x: Tensor, heads: int) -> Tensor:
    """[..., groups, key] with each group repeated for its heads: [..., heads, key]."""
    return x if x.shape[-2] == heads else x.repeat_interleave(heads // x.shape[-2], -2)
