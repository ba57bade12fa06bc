"""Both passes of the kernel as `torch.library` operators, `strobe::diagonal_scan` and `strobe::diagonal_scan_backward`.

The second has no gradient: second derivatives are for the other backends, and asking for them is an error.
"""

from typing import Any

import torch
from torch import Tensor

from strobe.kernels.triton.device import launch
from strobe.kernels.triton.segments import count, segments

# Channels of a program of one warp. By what compiling left in registers, not by time, as no GPU was at hand.
BLOCK = 64
_OPTIONS: dict[str, Any] = {"num_warps": 1, "num_stages": 1}


def as_pairs(x: Tensor) -> Tensor:
    """`x` contiguous, and if it is complex as its real and imaginary parts side by side."""
    x = x.contiguous()
    return torch.view_as_real(x) if x.is_complex() else x


def _grid(x: Tensor) -> tuple[int, int]:
    return x.shape[0], -(-x.shape[2] // BLOCK)


@torch.library.custom_op("strobe::diagonal_scan", mutates_args=())
def diagonal_scan(
    a: Tensor,
    b: Tensor,
    h: Tensor,
    values: Tensor | None,
    kinds: Tensor | None,
    edited: list[int],
    positions: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """(carries [batch, time, channels] before edits, the last after, captured), float32, or complex64 if all are.

    a, b [batch, time, channels], h [batch, channels]; `values`, `kinds`, `edited`: `strobe.kernels.triton.segments`.
    """
    from strobe.kernels.triton_diagonal.kernels import scan_kernel

    batch, time, channels = b.shape
    dtype = torch.complex64 if b.is_complex() else torch.float32
    outputs = [
        torch.empty(shape, dtype=dtype, device=b.device)
        for shape in (b.shape, (batch, channels), (batch, len(positions), channels))
    ]
    if not b.numel():
        return outputs[0], outputs[1], outputs[2]
    table = segments(time, None, positions, edited)
    every, last, captured = (as_pairs(x) for x in outputs)
    launch(
        scan_kernel,
        _grid(b),
        b.device,
        A=as_pairs(a),
        B=as_pairs(b),
        H_FIRST=as_pairs(h),
        VALUES=None if values is None else as_pairs(values),
        KINDS=kinds,
        SEGMENTS=torch.tensor(table, dtype=torch.int32, device=b.device),
        H=every,
        H_LAST=last,
        CAPTURED=captured,
        time=time,
        n_segments=count(len(table) // 5),
        n_captured=len(positions),
        CHANNELS=channels,
        IMAGINARY=b.is_complex(),
        CAPTURE=bool(positions),
        EDIT=bool(edited),
        BLOCK=BLOCK,
        **_OPTIONS,
    )
    return outputs[0], outputs[1], outputs[2]


@diagonal_scan.register_fake
def _(a, b, h, values, kinds, edited, positions):
    dtype = torch.complex64 if b.is_complex() else torch.float32
    (batch, _, channels) = b.shape
    shapes = (b.shape, (batch, channels), (batch, len(positions), channels))
    return tuple(b.new_empty(shape, dtype=dtype) for shape in shapes)


@torch.library.custom_op("strobe::diagonal_scan_backward", mutates_args=())
def diagonal_scan_backward(d_every: Tensor, a: Tensor, h: Tensor, every: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of (a, b, h), float32 or complex64."""
    from strobe.kernels.triton_diagonal.kernels import gradient_kernel

    outputs = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (every, every)]
    outputs.append(torch.empty(h.shape, dtype=every.dtype, device=h.device))
    if not every.numel():
        return outputs[0], outputs[1], outputs[2].zero_()
    d_a, d_b, d_h = (as_pairs(x) for x in outputs)
    launch(
        gradient_kernel,
        _grid(every),
        every.device,
        A=as_pairs(a),
        H_FIRST=as_pairs(h),
        H=as_pairs(every),
        D_H=as_pairs(d_every),
        D_A=d_a,
        D_B=d_b,
        D_FIRST=d_h,
        time=every.shape[1],
        CHANNELS=every.shape[2],
        IMAGINARY=every.is_complex(),
        BLOCK=BLOCK,
        **_OPTIONS,
    )
    return outputs[0], outputs[1], outputs[2]


@diagonal_scan_backward.register_fake
def _(d_every, a, h, every):
    return every.new_empty(every.shape), every.new_empty(every.shape), every.new_empty(h.shape)


def _setup_context(ctx, inputs, output) -> None:
    a, b, h, values, *_ = inputs
    ctx.save_for_backward(a, h, output[0])
    ctx.dtypes, ctx.edited = (a.dtype, b.dtype, h.dtype), values is not None
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx, d_every, d_last, d_captured):
    if ctx.edited:
        raise RuntimeError(
            "a gradient of strobe::diagonal_scan was asked for, but it ran with edits inside; call "
            "strobe.kernels.scan, which cuts the scan where a gradient is wanted"
        )
    a, h, every = ctx.saved_tensors
    found = diagonal_scan_backward(d_every, a, h, every)
    return (*(x.to(dtype) for x, dtype in zip(found, ctx.dtypes, strict=True)), *[None] * 4)


diagonal_scan.register_autograd(_backward, setup_context=_setup_context)
