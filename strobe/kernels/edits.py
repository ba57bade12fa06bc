"""Edits of a carry, as data: what is changed, where and how, so that a kernel can honour them without a callback."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

EditKind = Literal["set", "add", "scale", "project_out"]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One change of the carry that crosses from token `position` to the next.

    `kind`
        ``set``: the field becomes `value`; ``add``: `value` is added; ``scale``: the field is multiplied by `value`
        (a number, or a tensor that broadcasts); ``project_out``: the component along the direction `value` is removed.
    `value`
        A number, or a tensor that broadcasts against the edited part of the field, ``[batch, (heads,) ...]``.
        For ``project_out`` a direction: either of the field's whole trailing shape (the component along that flattened
        direction goes), or a vector over the *first* of two trailing axes (``[key]`` for a matrix ``[key, value]``:
        the carry then answers zero to that query). It need not be normalised.
    `field`
        Name of the carry's field; None means the first field, the memory.
    `heads`
        Indices along the axis after the batch (heads of a matrix carry, channels of a vector one); None means all.
    """

    position: int
    kind: EditKind
    value: Any
    field: str | None = None
    heads: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(EditKind):
            raise ValueError(f"edit kind {self.kind!r} does not exist; the kinds are {', '.join(get_args(EditKind))}")


def apply_edit(edit: Edit, carry: Any) -> Any:
    """`carry` (a NamedTuple of tensors, batch first) with `edit` applied; the tensors given are left as they were.

    Raises ValueError if the field does not exist, a head index is out of range or the value does not broadcast.
    """
    field = edit.field or carry._fields[0]
    if field not in carry._fields:
        raise ValueError(f"edit names the field {field!r}; this carry has {', '.join(carry._fields)}")
    old = getattr(carry, field)
    heads = None if edit.heads is None else torch.as_tensor(list(edit.heads), device=old.device)
    if heads is not None and (old.ndim < 2 or heads.min() < 0 or heads.max() >= old.shape[1]):
        raise ValueError(
            f"edit asks for heads {list(edit.heads or [])} of {field!r}, whose shape is {tuple(old.shape)}"
        )
    part = old if heads is None else old.index_select(1, heads)
    changed = _change(edit, part, field)
    if heads is not None:
        changed = old.index_copy(1, heads, changed)
    return carry._replace(**{field: changed})


def _change(edit: Edit, part: Tensor, field: str) -> Tensor:
    if isinstance(edit.value, int | float) and edit.kind in ("add", "scale"):
        return part + edit.value if edit.kind == "add" else part * edit.value
    value = torch.as_tensor(edit.value, device=part.device, dtype=part.dtype)
    if edit.kind == "project_out":
        return _project_out(part, value, field)
    try:
        value = value.broadcast_to(part.shape)
    except RuntimeError:
        raise ValueError(
            f"edit {edit.kind!r} of {field!r} at position {edit.position}: a value of shape {tuple(value.shape)} "
            f"does not broadcast to {tuple(part.shape)}"
        ) from None
    if edit.kind == "set":
        return value.clone()
    return part + value if edit.kind == "add" else part * value


def _project_out(part: Tensor, direction: Tensor, field: str) -> Tensor:
    norm = torch.linalg.vector_norm(direction)
    if not norm > 0:
        raise ValueError(
            f"edit 'project_out' of {field!r} needs a direction with a positive norm, got norm {norm.item()}"
        )
    unit = direction / norm
    if part.ndim >= 3 and direction.shape == part.shape[-2:-1]:
        return part - unit[:, None] * torch.einsum("k,...kv->...v", unit, part).unsqueeze(-2)
    trailing = direction.shape
    if not trailing or part.shape[part.ndim - len(trailing) :] != trailing:
        raise ValueError(
            f"edit 'project_out' of {field!r}: a direction of shape {tuple(trailing)} matches neither the end of "
            f"{tuple(part.shape)} nor its second-to-last axis"
        )
    axes = tuple(range(-len(trailing), 0))
    return part - (part * unit).sum(axes, keepdim=True) * unit


class EditsAt(NamedTuple):
    """All edits of one position, in the order given."""

    position: int
    edits: tuple[Edit, ...]


def edits_by_position(edits: Sequence[Edit], time: int) -> list[EditsAt]:
    """Group `edits` by absolute position, ascending. Raises IndexError for a position outside [-time, time)."""
    groups: dict[int, list[Edit]] = {}
    for edit in edits:
        if not -time <= edit.position < time:
            raise IndexError(f"edit at position {edit.position}, but the scan has {time} tokens (0 to {time - 1})")
        groups.setdefault(edit.position % time, []).append(edit)
    return [EditsAt(position, tuple(groups[position])) for position in sorted(groups)]
