"""What elementwise scans share: where a sequential kernel stops on its way, and the edits it makes there.

A kernel runs from stop to stop with nothing but the recurrence in between, so that looking costs what is looked at.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from strobe.kernels.edits import EditsAt, apply_edit

KINDS = {"set": 1, "add": 2, "scale": 3, "project_out": 4}
"""Numbers of the kinds of edits inside a kernel; 0 is none, and each field of a carry has its own four."""


class EditList(NamedTuple):
    """`values` [n_edits, batch, channels, ...], `kinds` [n_edits, channels] (`KINDS` + 4 * the field's index, 0 for a
    channel that is left alone) and `positions`, one an edit, ascending."""

    values: Tensor | None
    kinds: Tensor | None
    positions: list[int]


def segments(time: int, longest: int | None, positions: list[int], edited: list[int]) -> list[int]:
    """Five numbers a segment: first token, one after its last, the capture at its end (-1: none), edits there (from,
    to). No segment has more than `longest` tokens; `positions` (no repeats) and `edited` are ascending."""
    time = int(time)  # while a graph is traced a symbol, which this makes a number of: the table has one size for each
    stops = {time, *(p + 1 for p in positions), *(e + 1 for e in edited)}
    if longest is not None:
        stops |= set(range(longest, time, longest))
    captures = {p + 1: i for i, p in enumerate(positions)}
    table, start, edit = [], 0, 0
    for stop in sorted(stops):
        first = edit
        while edit < len(edited) and edited[edit] == stop - 1:
            edit += 1
        table += [start, stop, captures.get(stop, -1), first, edit]
        start = stop
    return table


def edit_list(edits: Sequence[EditsAt], carry: Any) -> EditList:
    """`edits` as a kernel takes them. Raises ValueError as `apply_edit` does, asked on an empty carry first."""
    flat = [(here.position, edit) for here in edits for edit in here.edits]
    if not flat:
        return EditList(None, None, [])
    memory = carry[0]
    values, kinds = [], torch.zeros(len(flat), memory.shape[1], dtype=torch.int32)
    for n, (_, edit) in enumerate(flat):
        apply_edit(edit, type(carry)(*(torch.zeros_like(x) for x in carry)))
        channels = list(range(memory.shape[1])) if edit.heads is None else list(edit.heads)
        x = torch.as_tensor(edit.value, device=memory.device, dtype=memory.dtype)
        if edit.kind == "project_out":
            x = x / torch.linalg.vector_norm(x)
        whole = torch.zeros_like(memory)
        whole[:, channels] = x.broadcast_to(memory.shape[0], len(channels), *memory.shape[2:])
        values.append(whole)
        field = carry._fields.index(edit.field or carry._fields[0])
        kinds[n, channels] = KINDS[edit.kind] + 4 * field
    return EditList(torch.stack(values), kinds.to(memory.device), [position for position, _ in flat])


def wants_gradient(*values: Any) -> bool:
    """Whether autograd is on and any of `values` is a tensor that requires a gradient."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in values)


def count(number: int) -> Any:
    """How often a loop runs, as an argument: the interpreter of triton 3.6 loops over constants only."""
    from triton.language import constexpr

    from strobe.kernels.triton.device import interpreting

    return constexpr(number) if interpreting() else number
