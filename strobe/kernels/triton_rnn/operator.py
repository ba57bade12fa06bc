"""The step kernel as `torch.library` operators, so that autograd, fake tensors and torch.compile know them.

``strobe::rnn_scan`` and ``strobe::rnn_scan_backward``. The second has no gradient: second derivatives are for the other
backends, and asking for them is an error.
"""

import torch
from torch import Tensor

from strobe.kernels.triton_rnn import launch


@torch.library.custom_op("strobe::rnn_scan", mutates_args=())
def rnn_scan(
    cell: str,
    pre: Tensor,
    R: Tensor,
    b: Tensor | None,
    mask: Tensor | None,
    first: Tensor,
    values: Tensor | None,
    kinds: Tensor | None,
    edited: list[int],
    positions: list[int],
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(read, last, captured, carries, saved), all float32.

    `cell` "elman", "gru", "lstm" or "slstm"; `pre` [batch, time, gates, heads, dim] is W x + b; R [gates, heads, dim,
    dim], the blocks of the recurrent weights, b [gates, heads, dim] their bias (b' of the GRU); `mask` [batch, time],
    False at padding; `first` [batch, fields, heads, dim]. `values` [n_edits, batch, heads, dim] are applied after the
    tokens `edited` (ascending) as `kinds` [n_edits, fields, heads, dim], int32, says: 0 not, 1 set, 2 add, 3 scale, 4
    project out the unit direction over the channels of a head.
    read [batch, time, heads, dim] is h; last and captured [batch, n_positions, fields, heads, dim] are carries. `keep`:
    also every token's carry [batch, time, fields, heads, dim], after its edits, and `saved` [batch, time, saved, heads,
    dim]: h (elman); r, z, n, R_n h + b'_n (gru); i, f, g, o (lstm); i~, f~ (not yet exponentiated), z, o (slstm). They
    are what the backward pass starts from.
    """
    inputs, asked = (
        launch.Inputs(cell, pre, R, b, mask, first),
        launch.Asked(values, kinds, edited, positions, keep),
    )
    return launch.forward(inputs, asked)


@rnn_scan.register_fake
def _(cell, pre, R, b, mask, first, values, kinds, edited, positions, keep):
    inputs = launch.Inputs(cell, pre, R, b, mask, first)
    return launch.empty_outputs(inputs, launch.Asked(values, kinds, edited, positions, keep))


@torch.library.custom_op("strobe::rnn_scan_backward", mutates_args=())
def rnn_scan_backward(
    d_read: Tensor,
    d_last: Tensor,
    d_captured: Tensor,
    cell: str,
    pre: Tensor,
    R: Tensor,
    b: Tensor | None,
    mask: Tensor | None,
    first: Tensor,
    values: Tensor | None,
    kinds: Tensor | None,
    edited: list[int],
    positions: list[int],
    carries: Tensor,
    saved: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (pre, R, b, first), each with the shape and dtype of its input; of no elements for a `b` that there
    is not. They pass through the edits; the edits' values have none."""
    inputs, asked = launch.Inputs(cell, pre, R, b, mask, first), launch.Asked(values, kinds, edited, positions, True)
    return launch.backward(inputs, asked, carries, saved, d_read, d_last, d_captured)


@rnn_scan_backward.register_fake
def _(d_read, d_last, d_captured, cell, pre, R, b, mask, first, values, kinds, edited, positions, carries, saved):
    d_b = R.new_empty(0) if b is None else torch.empty_like(b)
    return torch.empty_like(pre), torch.empty_like(R), d_b, torch.empty_like(first)


def _setup_context(ctx, inputs, output) -> None:
    cell, pre, R, b, mask, first, values, kinds, edited, positions, keep = inputs
    *_, carries, saved = output
    ctx.save_for_backward(pre, R, b, mask, first, values, kinds, carries, saved)
    ctx.plan = cell, edited, positions
    ctx.keep = keep
    ctx.mark_non_differentiable(carries, saved)


def _backward(ctx, d_read, d_last, d_captured, d_carries, d_saved):
    if not ctx.keep:
        raise RuntimeError(
            "a gradient of strobe::rnn_scan was asked for, but it ran without keep=True and kept nothing to make it "
            "from; call strobe.kernels.scan, which keeps what a gradient needs"
        )
    pre, R, b, mask, first, values, kinds, carries, saved = ctx.saved_tensors
    if ctx.needs_input_grad[6]:
        raise RuntimeError(
            "a gradient of an edit's value was asked of strobe::rnn_scan, which has none; call strobe.kernels.scan, "
            "which cuts the scan at such an edit"
        )
    cell, edited, positions = ctx.plan
    d_pre, d_R, d_b, d_first = rnn_scan_backward(
        d_read, d_last, d_captured, cell, pre, R, b, mask, first, values, kinds, edited, positions, carries, saved
    )
    return None, d_pre, d_R, None if b is None else d_b, None, d_first, *[None] * 5


rnn_scan.register_autograd(_backward, setup_context=_setup_context)
