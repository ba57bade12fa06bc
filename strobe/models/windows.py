"""Short windows: what a convolution over time, or a token shift, carries from one token to the next.

A *stream* [batch, time, channels] is what the window slides over; the window after token t is the last `width` stream
entries up to t. Padding tokens neither enter a window nor move it: with a mask, windows run over the real tokens of
each row only, so that any padding (left, right, between) leaves every real token's numbers unchanged.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Stream = Float[Tensor, "batch time channels"]
Window = Float[Tensor, "batch width channels"]
Mask = Bool[Tensor, "batch time"]


def causal_conv(
    stream: Stream,
    window: Window,
    weight: Float[Tensor, "channels kernel"],
    bias: Tensor | None,
    mask: Mask | None = None,
) -> Stream:
    """Depthwise causal convolution, y_t = sum_j weight_j stream_{t-kernel+1+j} + bias, continued from `window`.

    `window` holds the last kernel-1 entries before the stream. Numbers at padding tokens are not meaningful.
    """
    if mask is None:
        return _conv(stream, window, weight, bias)
    order, back = _compaction(mask)
    out = _conv(torch.take_along_dim(stream, order[..., None], 1), window, weight, bias)
    return torch.take_along_dim(out, back[..., None], 1)


def _conv(stream: Stream, window: Window, weight: Tensor, bias: Tensor | None) -> Stream:
    dtype, kernel = stream.dtype, weight.shape[1]
    weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
    if torch.is_grad_enabled() or stream.device.type != "cpu":
        padded = torch.cat([window.to(dtype), stream], 1).transpose(1, 2)
        return F.conv1d(padded, weight[:, None, :], bias, groups=weight.shape[0]).transpose(1, 2)
    # On a CPU a sum of shifted streams is three to seven times as fast: conv1d wants time last, and moves everything
    # there and back. Only the first tokens see the window.
    taps, before = weight.T.contiguous(), kernel - 1
    head = torch.cat([window.to(dtype), stream[:, :before]], 1)
    if stream.shape[1] <= before:
        return _sum_of_shifted(head, taps, bias)
    y = stream.new_empty(stream.shape)
    _sum_of_shifted(head, taps, bias, y[:, :before])
    _sum_of_shifted(stream, taps, bias, y[:, before:])
    return y


def _sum_of_shifted(stream: Tensor, taps: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """The convolution at the tokens of `stream` that have kernel - 1 before them, in `out` if it is given; `taps` is
    [kernel, channels]. Without gradients."""
    last, time = len(taps) - 1, stream.shape[1]
    now = stream[:, last:]
    y = torch.mul(now, taps[last], out=out) if bias is None else torch.addcmul(bias, now, taps[last], out=out)
    for back in range(1, last + 1):
        y.addcmul_(stream[:, last - back : time - back], taps[last - back])
    return y


def shifted(stream: Stream, window: Window, mask: Mask | None = None) -> Stream:
    """The stream one real token earlier; the first takes the last entry of `window` (token shift of RWKV)."""
    if mask is None:
        return torch.cat([window[:, -1:].to(stream.dtype), stream[:, :-1]], 1)
    order, back = _compaction(mask)
    compact = torch.take_along_dim(stream, order[..., None], 1)
    return torch.take_along_dim(torch.cat([window[:, -1:].to(stream.dtype), compact[:, :-1]], 1), back[..., None], 1)


def windows_at(stream: Stream, window: Window, positions: list[int], mask: Mask | None = None) -> Tensor:
    """The window after each of `positions`: [batch, n_positions, width, channels]."""
    width = window.shape[1]
    where = torch.as_tensor(positions, device=stream.device)
    if mask is None:
        if not positions or min(positions) < width - 1:
            stream, where = (
                torch.cat([window.to(stream.dtype), stream[:, : max(positions, default=0) + 1]], 1),
                where + width,
            )
        return stream[:, where[:, None] + torch.arange(1 - width, 1, device=stream.device)]
    order, _ = _compaction(mask)
    padded = torch.cat([window.to(stream.dtype), torch.take_along_dim(stream, order[..., None], 1)], 1)
    index = mask.cumsum(1)[:, where][..., None] + torch.arange(width, device=stream.device)
    rows = torch.arange(stream.shape[0], device=stream.device)[:, None, None]
    return padded[rows, index]


def _compaction(mask: Mask) -> tuple[Tensor, Tensor]:
    """`order` lists each row's real tokens first, in order; `back` undoes it."""
    order = torch.argsort((~mask).to(torch.int8), dim=1, stable=True)
    return order, torch.argsort(order, dim=1)
