"""The running maximum with decay, max_t = max(max_{t-1} + w_t, k_t): the diagonal recurrence in (max, +).

Any scale near the largest term would do for stability; this is the one of the definition, so that a carry means the
same whichever backend made it. Both orders of `strobe.kernels.diagonal.recurrence` apply.
"""

import torch
from torch import Tensor

from strobe.kernels.diagonal.recurrence import blocked, diagonal_scan, into_blocks


def running_max(k: Tensor, w: Tensor, start: Tensor) -> Tensor:
    """max_t [batch, time, channels] for `k` of that shape, `w` that broadcasts to it, `start` [batch, channels].

    Made without a graph: see `with_gradient`.
    """
    with torch.no_grad():
        w = w.expand(k.shape)
        slab = start.numel() * start.element_size()
        return _two_level(k, w, start) if blocked(k.shape[1], slab) else _in_place(k, w, start)


def with_gradient(top: Tensor, k: Tensor, w: Tensor, start: Tensor) -> Tensor:
    """`top` = running_max(k, w, start) as a differentiable function of all three.

    The gradient of a maximum goes to the argument that won, half to each on a tie (as for `torch.maximum`): given who
    won, the recurrence is linear.
    """
    w = w.expand(k.shape)
    decayed = torch.cat([start.unsqueeze(1), top[:, :-1]], 1).detach() + w.detach()
    past = (decayed > k).to(k.dtype) + 0.5 * (decayed == k)
    # where() and not a product alone: 0 * -inf, for a key of minus infinity, is not a number.
    write = torch.where(past > 0, past * w, 0) + torch.where(past < 1, (1 - past) * k, 0)
    live = diagonal_scan(past, write, start)
    return top + (live - live.detach())


def _in_place(k: Tensor, w: Tensor, start: Tensor) -> Tensor:
    top = torch.empty_like(k, memory_format=torch.contiguous_format)
    previous = start
    for k_t, w_t, top_t in zip(k.unbind(1), w.unbind(1), top.unbind(1), strict=True):
        torch.add(previous, w_t, out=top_t)
        torch.maximum(top_t, k_t, out=top_t)
        previous = top_t
    return top


def _two_level(k: Tensor, w: Tensor, start: Tensor) -> Tensor:
    time = k.shape[1]
    k, w = into_blocks(k), into_blocks(w)
    top, decay = k.clone(memory_format=torch.contiguous_format), w.cumsum(2)
    for j in range(1, top.shape[2]):
        torch.maximum(k[:, :, j], top[:, :, j - 1] + w[:, :, j], out=top[:, :, j])
    starts = torch.empty_like(top[:, :, 0], memory_format=torch.contiguous_format)
    starts[:, 0] = start
    for n in range(1, top.shape[1]):
        torch.maximum(top[:, n - 1, -1], starts[:, n - 1] + decay[:, n - 1, -1], out=starts[:, n])
    return torch.maximum(top, decay + starts.unsqueeze(2)).flatten(1, 2)[:, :time]
