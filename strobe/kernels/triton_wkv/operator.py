"""Both passes of the kernel as `torch.library` operators, `strobe::wkv_scan` and `strobe::wkv_scan_backward`.

The second has no gradient: second derivatives are for the other backends, and asking for them is an error.
"""

from typing import Any

import torch
from torch import Tensor

from strobe.kernels.triton.device import launch
from strobe.kernels.triton.segments import count, segments

# Channels of a program of one warp, and tokens of which all loads come first. By what compiling left in registers, not
# by time, as no GPU was at hand.
BLOCK = 64
UNROLL = 4
_OPTIONS: dict[str, Any] = {"num_warps": 1, "num_stages": 1}


def _grid(k: Tensor) -> tuple[int, int]:
    return k.shape[0], -(-k.shape[2] // BLOCK)


def _shapes(k: Tensor, positions: list[int], keep: bool) -> list[tuple[Any, ...]]:
    batch, time, channels = k.shape
    kept = time if keep else 0
    return [(batch, time, channels), *((batch, *n, 3, channels) for n in ((kept,), (), (len(positions),)))]


def _bytes(mask: Tensor | None, batch: int, time: int) -> Tensor | None:
    return None if mask is None else mask.to(torch.uint8).expand(batch, time).contiguous()


@torch.library.custom_op("strobe::wkv_scan", mutates_args=())
def wkv_scan(
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    mask: Tensor | None,
    carry: Tensor,
    values: Tensor | None,
    kinds: Tensor | None,
    edited: list[int],
    positions: list[int],
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(read [batch, time, channels], carries before edits [batch, time, 3, channels], the last after them [batch, 3,
    channels], captured [batch, n_positions, 3, channels]), float32. The carries have no token unless `keep`.

    k, v [batch, time, channels], w, u [channels], mask [batch, time], bool, carry [batch, 3, channels]; `values`,
    `kinds`, `edited`: `strobe.kernels.triton.segments`.
    """
    from strobe.kernels.triton_wkv.kernels import scan_kernel

    time, channels = k.shape[1:]
    shapes = _shapes(k, positions, keep)
    read, every, last, captured = (torch.empty(s, dtype=torch.float32, device=k.device) for s in shapes)
    if not k.numel():
        return read, every, last, captured
    table = segments(time, None, positions, edited)
    launch(
        scan_kernel,
        _grid(k),
        k.device,
        K=k.contiguous(),
        V=v.contiguous(),
        W=w.contiguous(),
        U=u.contiguous(),
        MASK=_bytes(mask, *k.shape[:2]),
        FIRST=carry.contiguous(),
        VALUES=None if values is None else values.contiguous(),
        KINDS=kinds,
        SEGMENTS=torch.tensor(table, dtype=torch.int32, device=k.device),
        READ=read,
        EVERY=every,
        LAST=last,
        CAPTURED=captured,
        time=time,
        n_segments=count(len(table) // 5),
        n_captured=len(positions),
        CHANNELS=channels,
        MASKED=mask is not None,
        KEEP=keep,
        CAPTURE=bool(positions),
        EDIT=bool(edited),
        BLOCK=BLOCK,
        UNROLL=UNROLL,
        **_OPTIONS,
    )
    return read, every, last, captured


@wkv_scan.register_fake
def _(k, v, w, u, mask, carry, values, kinds, edited, positions, keep):
    return tuple(k.new_empty(s, dtype=torch.float32) for s in _shapes(k, positions, keep))


@torch.library.custom_op("strobe::wkv_scan_backward", mutates_args=())
def wkv_scan_backward(
    d_read: Tensor,
    d_every: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor,
    u: Tensor,
    mask: Tensor | None,
    carry: Tensor,
    every: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (k, v, w, u, carry), float32."""
    from strobe.kernels.triton_wkv.kernels import gradient_kernel

    batch, time, channels = k.shape
    shapes = (k.shape, k.shape, (batch, channels), (batch, channels), carry.shape)
    d_k, d_v, d_w, d_u, d_carry = (torch.empty(s, dtype=torch.float32, device=k.device) for s in shapes)
    if k.numel():
        launch(
            gradient_kernel,
            _grid(k),
            k.device,
            K=k.contiguous(),
            V=v.contiguous(),
            W=w.contiguous(),
            U=u.contiguous(),
            MASK=_bytes(mask, *k.shape[:2]),
            FIRST=carry.contiguous(),
            EVERY=every,
            D_READ=d_read.contiguous(),
            D_EVERY=d_every.contiguous(),
            D_K=d_k,
            D_V=d_v,
            D_W=d_w,
            D_U=d_u,
            D_FIRST=d_carry,
            time=time,
            CHANNELS=channels,
            MASKED=mask is not None,
            BLOCK=BLOCK,
            **_OPTIONS,
        )
    return d_k, d_v, d_w.sum(0), d_u.sum(0), d_carry


@wkv_scan_backward.register_fake
def _(d_read, d_every, k, v, w, u, mask, carry, every):
    return tuple(x.new_empty(x.shape, dtype=torch.float32) for x in (k, v, w, u, carry))


def _setup_context(ctx, inputs, output) -> None:
    k, v, w, u, mask, carry, values, _, _, _, keep = inputs
    ctx.save_for_backward(k, v, w, u, mask, carry, output[1])
    ctx.differentiable = keep and values is None
    ctx.mark_non_differentiable(*output[2:])


def _backward(ctx, d_read, d_every, d_last, d_captured):
    if not ctx.differentiable:
        raise RuntimeError(
            "a gradient of strobe::wkv_scan was asked for, but it ran without keep=True, or with edits inside, and "
            "kept nothing to make it from; call strobe.kernels.scan, which cuts the scan where a gradient is wanted"
        )
    k, v, w, u, mask, carry, every = ctx.saved_tensors
    found = wkv_scan_backward(d_read, d_every, k, v, w, u, mask, carry, every)
    d_k, d_v, d_w, d_u, d_carry = (d.to(x.dtype) for d, x in zip(found, (k, v, w, u, carry), strict=True))
    return d_k, d_v, d_w, d_u, None, d_carry, *[None] * 5


wkv_scan.register_autograd(_backward, setup_context=_setup_context)
