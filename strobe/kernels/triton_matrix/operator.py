"""Both passes of the chunk kernel as `torch.library` operators, so that autograd and torch.compile see one operation.

``strobe::matrix_scan`` and ``strobe::matrix_scan_backward``. The second has no gradient: second derivatives are for the
other backends, and asking for them is an error.
"""

import torch
from torch import Tensor

from strobe.kernels.triton_matrix import launch


@torch.library.custom_op("strobe::matrix_scan", mutates_args=())
def matrix_scan(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    S: Tensor,
    readers: Tensor | None,
    values: Tensor | None,
    kinds: list[int],
    edited: list[int],
    positions: list[int],
    offsets: Tensor | None,
    longest: int,
    chunk: int,
    rank: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(read, carry, captured, answers, starts, inverse).

    q, k [batch, time, groups, key], v [batch, time, heads, value], log_decay [batch, time, heads] or [.., key], a
    [batch, time, heads, key] (`rank` 2), b [batch, time, groups or heads, key] (`rank` 1, 2), S [sequences, heads, key,
    value], readers [n_readers, heads, key]. `values` [n_edits, sequences, heads, key, value] are applied after the
    tokens `edited` (ascending) as `kinds` says, n_edits * heads numbers: 0 not, 1 set, 2 add, 3 scale, 4 project out
    the unit direction over keys. `offsets` [sequences + 1], int32, where batch is 1 and sequences lie end to end;
    `longest` is the length of the longest. `keep`: also return the carry at each chunk's start [sequences, heads,
    n_chunks, key, value] and what the backward pass needs; chunks then end at every captured position.
    Everything returned is float32, but `starts` has the signals' dtype if that is bfloat16.
    """
    return launch.forward(
        launch.Inputs(q, k, v, log_decay, a, b, S, rank, offsets, longest, chunk),
        launch.Asked(readers, values, kinds, edited, positions, keep),
    )


@matrix_scan.register_fake
def _(q, k, v, log_decay, a, b, S, readers, values, kinds, edited, positions, offsets, longest, chunk, rank, keep):
    inputs = launch.Inputs(q, k, v, log_decay, a, b, S, rank, offsets, longest, chunk)
    return launch.empty_outputs(inputs, launch.Asked(readers, values, kinds, edited, positions, keep))


@torch.library.custom_op("strobe::matrix_scan_backward", mutates_args=())
def matrix_scan_backward(
    d_read: Tensor,
    d_carry: Tensor,
    d_captured: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    S: Tensor,
    starts: Tensor,
    inverse: Tensor,
    positions: list[int],
    offsets: Tensor | None,
    longest: int,
    chunk: int,
    rank: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of (q, k, v, log_decay, a, b, S), each with the shape and dtype of its input; of no elements for an
    input that there is not."""
    inputs = launch.Inputs(q, k, v, log_decay, a, b, S, rank, offsets, longest, chunk)
    d_q, d_k, d_v, d_g, d_a, d_b, d_S = launch.backward(inputs, starts, inverse, positions, d_read, d_carry, d_captured)
    return d_q, d_k, d_v, d_g, d_a, d_b, d_S


@matrix_scan_backward.register_fake
def _(
    d_read, d_carry, d_captured, q, k, v, log_decay, a, b, S, starts, inverse, positions, offsets, longest, chunk, rank
):
    return tuple(q.new_empty(0) if x is None else torch.empty_like(x) for x in (q, k, v, log_decay, a, b, S))


def _setup_context(ctx, inputs, output) -> None:
    q, k, v, log_decay, a, b, S, readers, values, _, _, positions, offsets, longest, chunk, rank, keep = inputs
    *_, starts, inverse = output
    ctx.save_for_backward(q, k, v, log_decay, a, b, S, offsets, starts, inverse)
    ctx.plan = positions, longest, chunk, rank
    ctx.differentiable = keep and readers is None and values is None
    ctx.mark_non_differentiable(starts, inverse)


def _backward(ctx, d_read, d_carry, d_captured, d_answers, d_starts, d_inverse):
    if not ctx.differentiable:
        raise RuntimeError(
            "a gradient of strobe::matrix_scan was asked for, but it ran without keep=True, or with readers or edits "
            "inside, and kept nothing to make it from; call strobe.kernels.scan, which cuts the scan where a gradient "
            "is wanted"
        )
    q, k, v, log_decay, a, b, S, offsets, starts, inverse = ctx.saved_tensors
    positions, longest, chunk, rank = ctx.plan
    found = matrix_scan_backward(
        d_read,
        d_carry,
        d_captured,
        q,
        k,
        v,
        log_decay,
        a,
        b,
        S,
        starts,
        inverse,
        positions,
        offsets,
        longest,
        chunk,
        rank,
    )
    given = (q, k, v, log_decay, a, b, S)
    gradients = [None if x is None else d for x, d in zip(given, found, strict=True)]
    return (*gradients, *[None] * 10)


matrix_scan.register_autograd(_backward, setup_context=_setup_context)
