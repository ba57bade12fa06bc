"""Both passes of the kernel as `torch.library` operators, so that autograd and torch.compile see one operation.

``strobe::selective_scan`` and ``strobe::selective_scan_backward``. The second has no gradient: second derivatives are
for the `reference` backend, and asking for them is an error.
"""

import torch
from torch import Tensor

from strobe.kernels.triton_selective import launch


@torch.library.custom_op("strobe::selective_scan", mutates_args=())
def selective_scan(
    x: Tensor,
    delta: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    h: Tensor,
    readers: Tensor | None,
    values: Tensor | None,
    kinds: Tensor | None,
    edited: list[int],
    positions: list[int],
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(read, carry, captured, answers, starts), all float32.

    x, delta [batch, time, channels], B, C [batch, time, state], A [channels, state], h [batch, channels, state],
    readers [n_readers, 1 or channels, state]. `values`, `kinds`, `edited`: see `strobe.kernels.triton.segments`.
    `keep`: also return the carries at the starts of segments [batch, n_segments, channels, state], which the backward
    pass needs.
    """
    return launch.forward(
        launch.Inputs(x, delta, B, C, A, h, readers), launch.Asked(values, kinds, edited, positions, keep)
    )


@selective_scan.register_fake
def _(x, delta, B, C, A, h, readers, values, kinds, edited, positions, keep):
    inputs = launch.Inputs(x, delta, B, C, A, h, readers)
    return launch.empty_outputs(inputs, launch.Asked(values, kinds, edited, positions, keep))


@torch.library.custom_op("strobe::selective_scan_backward", mutates_args=())
def selective_scan_backward(
    d_read: Tensor,
    d_carry: Tensor,
    d_captured: Tensor,
    d_answers: Tensor,
    x: Tensor,
    delta: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    h: Tensor,
    readers: Tensor | None,
    starts: Tensor,
    positions: list[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (x, delta, B, C, A, h, readers), each with the shape and dtype of its input; of no elements for
    readers that there are not."""
    inputs = launch.Inputs(x, delta, B, C, A, h, readers)
    given = (d_read, d_carry, d_captured, d_answers)
    d_x, d_delta, d_B, d_C, d_A, d_h, d_u = launch.backward(inputs, starts, positions, given)
    return d_x, d_delta, d_B, d_C, d_A, d_h, d_u


@selective_scan_backward.register_fake
def _(d_read, d_carry, d_captured, d_answers, x, delta, B, C, A, h, readers, starts, positions):
    given = (x, delta, B, C, A, h, readers)
    return tuple(x.new_empty(0) if y is None else y.new_empty(y.shape) for y in given)


def _setup_context(ctx, inputs, output) -> None:
    *given, values, _, _, positions, keep = inputs
    ctx.save_for_backward(*given, output[-1])
    ctx.positions, ctx.differentiable = positions, keep and values is None
    ctx.mark_non_differentiable(output[-1])


def _backward(ctx, d_read, d_carry, d_captured, d_answers, d_starts):
    if not ctx.differentiable:
        raise RuntimeError(
            "a gradient of strobe::selective_scan was asked for, but it ran without keep=True, or with edits inside, "
            "and kept nothing to make it from; call strobe.kernels.scan, which cuts the scan where a gradient is wanted"
        )
    *given, starts = ctx.saved_tensors
    found = selective_scan_backward(d_read, d_carry, d_captured, d_answers, *given, starts, ctx.positions)
    return (*(None if x is None else d for x, d in zip(given, found, strict=True)), *[None] * 5)


selective_scan.register_autograd(_backward, setup_context=_setup_context)
