"""The diagonal recurrence h_t = a_t h_{t-1} + b_t as one differentiable function, without division.

Dividing by the running product of `a` (or taking its logarithm) would turn the recurrence into a cumulative sum, but
the product underflows after a few hundred tokens and a zero forgets for good. Two division-free orders of the same
multiplications are used instead; which is faster depends on how many bytes one token's slab holds:

- narrow: cut time into about sqrt(T) blocks, run all blocks side by side from zero, then carry each block's start
  through (Blelloch 1990, "Prefix sums and their applications", section 1.2). About 3 sqrt(T) small operations.
- wide: one in-place fused multiply-add for each token. T operations, no intermediate.
"""

import math

import torch
from torch import Tensor

# Above this many bytes per token the two extra passes of the blocked order cost more than T operator calls.
WIDE_SLAB_BYTES = 16 * 1024


def diagonal_scan(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    """h [batch, time, ...] with h_t = a_t * h_{t-1} + b_t, elementwise, real or complex.

    `a`, `b`: [batch, time, ...], broadcast against each other; `h0`: [batch, ...], the carry before the first token.
    Gradients (of any order) are exact: the backward pass is the same recurrence run from the last token to the first.
    Raises ValueError where the shapes do not belong together.
    """
    try:
        shape = torch.broadcast_shapes(a.shape, b.shape)
        fits = len(shape) >= 2 and torch.broadcast_shapes(h0.shape, (shape[0], *shape[2:])) == (shape[0], *shape[2:])
    except RuntimeError:
        fits = False
    if not fits:
        raise ValueError(
            f"diagonal_scan needs a, b of shape [batch, time, ...] and h0 of shape [batch, ...]; got "
            f"{tuple(a.shape)}, {tuple(b.shape)} and {tuple(h0.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), h0.dtype)
    a, b, h0 = (x.to(dtype).expand(s) for x, s in ((a, shape), (b, shape), (h0, (shape[0], *shape[2:]))))
    if shape[1] == 1:
        return torch.addcmul(b, a, h0.unsqueeze(1))
    return _DiagonalScan.apply(a, b, h0)


class _DiagonalScan(torch.autograd.Function):
    @staticmethod
    def forward(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
        return _recurrence(a, b, h0)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        a, _, h0 = inputs
        ctx.save_for_backward(a, h0, output)

    @staticmethod
    def backward(ctx, grad: Tensor):
        # G_t = dL/dh_t over all paths obeys G_t = grad_t + conj(a_{t+1}) G_{t+1}: the recurrence, backwards in time.
        a, h0, h = ctx.saved_tensors
        after = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], 1).conj()
        total = diagonal_scan(after.flip(1), grad.flip(1), torch.zeros_like(h0)).flip(1)
        before = torch.cat([h0.unsqueeze(1), h[:, :-1]], 1)
        need_a, _, need_h0 = ctx.needs_input_grad
        return total * before.conj() if need_a else None, total, a[:, 0].conj() * total[:, 0] if need_h0 else None


def _recurrence(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    slab = h0.numel() * h0.element_size()
    return _in_place(a, b, h0) if slab >= WIDE_SLAB_BYTES or a.shape[1] < 16 else _two_level(a, b, h0)


def _in_place(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    h = torch.empty_like(b, memory_format=torch.contiguous_format)
    previous = h0
    for a_t, b_t, h_t in zip(a.unbind(1), b.unbind(1), h.unbind(1), strict=True):
        torch.addcmul(b_t, a_t, previous, out=h_t)
        previous = h_t
    return h


def _two_level(a: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    batch, time = a.shape[:2]
    length = math.isqrt(time - 1) + 1
    blocks = -(-time // length)
    padding = blocks * length - time
    if padding:
        # Tokens after the end, cut off again below: what they hold is never read.
        a, b = (torch.cat([x, x[:, -1:].expand(-1, padding, *x.shape[2:])], 1) for x in (a, b))
    a = a.reshape(batch, blocks, length, *a.shape[2:])
    b = b.reshape(a.shape)
    h, decay = torch.empty_like(a), torch.empty_like(a)
    h[:, :, 0], decay[:, :, 0] = b[:, :, 0], a[:, :, 0]
    for j in range(1, length):
        torch.addcmul(b[:, :, j], a[:, :, j], h[:, :, j - 1], out=h[:, :, j])
        torch.mul(a[:, :, j], decay[:, :, j - 1], out=decay[:, :, j])
    starts = torch.empty_like(h[:, :, 0])
    starts[:, 0] = h0
    for k in range(1, blocks):
        torch.addcmul(h[:, k - 1, -1], decay[:, k - 1, -1], starts[:, k - 1], out=starts[:, k])
    h.addcmul_(decay, starts.unsqueeze(2))
    return h.flatten(1, 2)[:, :time]
