"""What the families `decay` and `delta` share in calling the chunk kernel: what it takes, and in which pieces."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from strobe.kernels.chunks import heads_per_group, reader_rows
from strobe.kernels.edits import Edit, EditsAt
from strobe.kernels.scan import Segment
from strobe.kernels.triton.device import why_not_shapes, why_not_tensors
from strobe.kernels.triton_matrix.operator import matrix_scan
from strobe.kernels.triton_matrix.plan import LARGEST_KEY, plan

_KINDS = {"set": 1, "add": 2, "scale": 3, "project_out": 4}


def refusal(signals: Any, carry: Any, readers: Tensor | None) -> str | None:
    """Why the kernel cannot run these, in words; None where it can."""
    given = {**signals._asdict(), "the carry": carry.S, "readers": readers}
    if (reason := why_not_tensors(given)) is not None:
        return reason
    key = carry.S.shape[-2]
    if key > LARGEST_KEY:
        return f"a head has {key} key channels and the kernel holds {LARGEST_KEY}; take backend='chunked'"
    batch, time, heads = signals.v.shape[:3]
    per_head = signals.log_decay.ndim == 4
    shapes = {"log_decay": (signals.log_decay, (batch, time, heads, *((key,) if per_head else ())))}
    for name in ("q", "k", "a", "b"):
        if (x := getattr(signals, name, None)) is not None:
            shapes[name] = x, (batch, time, heads if name == "a" else x.shape[-2], key)
    return why_not_shapes(shapes)


def takes(edit: Edit, signals: Any, carry: Any) -> bool:
    """Whether the kernel honours `edit` itself: not one that removes more than a direction over keys, as it may hold
    only some of the value channels, and none where a gradient is wanted, which autograd takes through the edit."""
    value = edit.value
    if torch.is_grad_enabled() and _wants_gradient(*signals, carry.S, value):
        return False
    if edit.field not in (None, "S"):
        return False
    return edit.kind != "project_out" or tuple(getattr(value, "shape", ())) == tuple(carry.S.shape[-2:-1])


def run(
    rank: int,
    signals: Any,
    carry: Any,
    positions: list[int],
    readers: Tensor | None,
    edits: Sequence[EditsAt],
    chunk: int | None = None,
) -> Segment:
    """The `triton` backend of the family whose `signals` have the fields q, k, v, log_decay and, from `rank` 1 on, a
    and b; see `strobe.kernels.scan.DeviceBackend`. `chunk` is for tests; None takes it from the table."""
    q, k, v, log_decay, *low_rank = signals
    a, b = low_rank or (None, None)
    batch, time, heads, value = v.shape
    for x in (q, k, *(() if b is None else (b,))):
        heads_per_group(heads, x.shape[2])
    chunk = chunk or plan(rank, log_decay.ndim == 4, k.shape[3], value, v.dtype).chunk
    S = carry.S.broadcast_to(batch, heads, k.shape[3], value)
    keep = torch.is_grad_enabled() and _wants_gradient(*signals, S, readers)
    values, kinds, edited = _edit_list(edits, carry)

    def scan(q: Tensor, rows: Tensor | None, at: list[int]) -> tuple[Tensor, ...]:
        return matrix_scan(
            q, k, v, log_decay, a, b, S, rows, values, kinds, edited, at, None, time, chunk, rank, keep
        )  # fmt: skip

    rows = None if readers is None else reader_rows(readers, heads, torch.float32)
    if rows is None or not keep:
        read, last, captured, answers, *_ = scan(q, rows, positions)
    else:
        # A reader is a query that never changes: its gradient is that of one.
        read, last, captured, *_ = scan(q, None, positions)
        answers = torch.stack([scan(u.expand(batch, time, -1, -1), None, [])[0] for u in rows], 2)
    return Segment(
        read=read,
        carry=type(carry)(last),
        captured=type(carry)(captured) if positions else None,
        readers=None if readers is None else answers,
    )


def _wants_gradient(*values: Any) -> bool:
    return any(isinstance(x, Tensor) and x.requires_grad for x in values)


def _edit_list(edits: Sequence[EditsAt], carry: Any) -> tuple[Tensor | None, list[int], list[int]]:
    """`edits` as the kernel takes them: values [n_edits, *carry], kinds [n_edits * heads], and their positions.

    Raises ValueError as `apply_edit` does: it is asked for each edit on an empty carry first.
    """
    from strobe.kernels.edits import apply_edit

    flat = [(here.position, edit) for here in edits for edit in here.edits]
    if not flat:
        return None, [], []
    S = carry.S
    values, kinds = [], []
    for _, edit in flat:
        apply_edit(edit, type(carry)(torch.zeros_like(S)))
        heads = list(range(S.shape[1])) if edit.heads is None else list(edit.heads)
        x = torch.as_tensor(edit.value, device=S.device, dtype=torch.float32)
        if edit.kind == "project_out":
            x = (x / torch.linalg.vector_norm(x)).unsqueeze(-1)
        whole = torch.zeros_like(S, dtype=torch.float32)
        whole[:, heads] = x.broadcast_to(S.shape[0], len(heads), *S.shape[2:])
        values.append(whole)
        kinds += [_KINDS[edit.kind] if h in heads else 0 for h in range(S.shape[1])]
    return torch.stack(values), kinds, [position for position, _ in flat]
