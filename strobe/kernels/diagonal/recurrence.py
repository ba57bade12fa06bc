"""The diagonal recurrence h_t = a_t h_{t-1} + b_t as one differentiable function, without division.

Dividing by the running product of `a` (or taking its logarithm) would turn the recurrence into a cumulative sum, but
the product underflows after a few hundred tokens and a zero forgets for good. Two division-free orders of the same
multiplications are used instead; which is faster depends on how many bytes one token's slab holds:

- narrow: cut time into about sqrt(T) blocks, run all blocks side by side from zero, then carry each block's start
  through (Blelloch 1990, "Prefix sums and their applications", section 1.2). About 3 sqrt(T) small operations.
- wide: one in-place fused multiply-add for each token. T operations, no intermediate.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor

# Measured on one core, float32: beyond this many bytes per token, or below this many tokens, T operator calls cost
# less than the two extra passes of the blocked order.
NARROW_SLAB_BYTES = 4 * 1024
BLOCKED_FROM_TOKENS = 128


def diagonal_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """Return h [batch, time, ...] with h_t = a_t * h_{t-1} + b_t, elementwise, real or complex.

    `b`: [batch, time, ...]; `a`: the same shape, or one that broadcasts to it, which costs less; `h0`: [batch, ...],
    the carry before the first token. The result has the dtype the three promote to. Gradients (of any order) are
    exact: the backward pass is the same recurrence run from the last token to the first.
    Raises ValueError where the shapes do not belong together.
    """
    if b.ndim < 2 or h0.shape != (b.shape[0], *b.shape[2:]) or not _broadcasts(a, b):
        raise ValueError(
            f"diagonal_scan needs b [batch, time, ...], a that broadcasts to it and h0 [batch, ...]; got b "
            f"{tuple(b.shape)}, a {tuple(a.shape)} and h0 {tuple(h0.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), h0.dtype)
    a, b, h0 = a.to(dtype).expand(*a.shape[:1], b.shape[1], *a.shape[2:]), b.to(dtype), h0.to(dtype)
    if b.shape[1] == 1:
        return torch.addcmul(b, a, h0.unsqueeze(1))
    return _DiagonalScan.apply(a, b, h0, False)


def blocked(time: int, slab_bytes: int) -> bool:
    """Whether the blocked order is the faster one for `time` tokens of `slab_bytes` each."""
    return time >= BLOCKED_FROM_TOKENS and slab_bytes <= NARROW_SLAB_BYTES


def into_blocks(x: Tensor) -> Tensor:
    """[batch, time, ...] as [batch, blocks, length, ...] with length about sqrt(time); the last token fills the end."""
    batch, time = x.shape[:2]
    root = math.isqrt(time - 1) + 1
    # A length that divides time copies nothing. Shorter ones cost few steps: two a token inside a block, one a block.
    length = next((n for n in range(root, root // 2, -1) if time % n == 0), root)
    padding = -time % length
    if padding:
        x = torch.cat([x, x[:, -1:].expand(-1, padding, *x.shape[2:])], 1)
    return x.reshape(batch, -1, length, *x.shape[2:])


def _broadcasts(a: Tensor, b: Tensor) -> bool:
    return a.ndim == b.ndim and all(n in (1, m) for n, m in zip(a.shape, b.shape, strict=True))


class _DiagonalScan(torch.autograd.Function):
    """The recurrence from the first token to the last or, where `reverse`, h_t = a_t h_{t+1} + b_t from the last."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, h0: Tensor, reverse: bool) -> Tensor:
        if not blocked(b.shape[1], h0.numel() * h0.element_size()):
            return _in_place(a, b, h0, reverse)
        return _two_level(a.flip(1), b.flip(1), h0).flip(1) if reverse else _two_level(a, b, h0)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        a, _, h0, ctx.reverse = inputs
        ctx.save_for_backward(a, h0, output)

    @staticmethod
    def backward(ctx, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        # G_t = dL/dh_t over all paths obeys G_t = grad_t + conj(a_{t+1}) G_{t+1}: the recurrence, the other way round.
        a, h0, h = ctx.saved_tensors
        first, others, last, earlier = slice(0, 1), slice(1, None), slice(-1, None), slice(None, -1)
        if ctx.reverse:
            first, others, last, earlier = last, earlier, first, others
        end = grad[:, last]
        if h.shape[1] > 1:
            total = _DiagonalScan.apply(a[:, others].conj(), grad[:, earlier], end.squeeze(1), not ctx.reverse)
            total, before = _in_order(total, end, ctx.reverse), _in_order(h0.unsqueeze(1), h[:, earlier], ctx.reverse)
        else:
            total, before = end, h0.unsqueeze(1)
        need_a, _, need_h0, _ = ctx.needs_input_grad
        return (
            (total * before.conj()).sum_to_size(a.shape) if need_a else None,
            total,
            (a[:, first].conj() * total[:, first]).squeeze(1) if need_h0 else None,
            None,
        )


def _in_order(earlier: Tensor, later: Tensor, reverse: bool) -> Tensor:
    return torch.cat([later, earlier] if reverse else [earlier, later], 1)


def _in_place(a: Tensor, b: Tensor, h0: Tensor, reverse: bool = False) -> Tensor:
    h = torch.empty_like(b, memory_format=torch.contiguous_format)
    tokens = list(zip(a.unbind(1), b.unbind(1), h.unbind(1), strict=True))
    previous = h0
    for a_t, b_t, h_t in reversed(tokens) if reverse else tokens:
        torch.addcmul(b_t, a_t, previous, out=h_t)
        previous = h_t
    return h


def _two_level(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    time = b.shape[1]
    a, b = into_blocks(a), into_blocks(b)
    h = torch.empty_like(b, memory_format=torch.contiguous_format)
    decay = torch.empty_like(a, memory_format=torch.contiguous_format)
    h[:, :, 0], decay[:, :, 0] = b[:, :, 0], a[:, :, 0]
    # Views of all tokens are made at once: indexing one by one costs as much as what is done with them.
    tokens = list(zip(*(x.unbind(2) for x in (a, b, h, decay)), strict=True))
    for (_, _, h_before, decay_before), (a_j, b_j, h_j, decay_j) in pairwise(tokens):
        torch.addcmul(b_j, a_j, h_before, out=h_j)
        torch.mul(a_j, decay_before, out=decay_j)
    starts = torch.empty_like(h[:, :, 0], memory_format=torch.contiguous_format)
    starts[:, 0] = h0
    blocks = zip(h[:, :-1, -1].unbind(1), decay[:, :-1, -1].unbind(1), pairwise(starts.unbind(1)), strict=True)
    for h_end, decay_all, (start, next_start) in blocks:
        torch.addcmul(h_end, decay_all, start, out=next_start)
    h.addcmul_(decay, starts.unsqueeze(2))
    return h.flatten(1, 2)[:, :time]
