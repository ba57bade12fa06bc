"""The `triton` backend of `diagonal`: the kernel of `strobe.kernels.triton_diagonal`."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from strobe.kernels.diagonal.reference import DiagonalCarry, DiagonalSignals, answer
from strobe.kernels.edits import Edit, EditsAt
from strobe.kernels.scan import Segment
from strobe.kernels.triton.device import why_not_tensors
from strobe.kernels.triton.segments import edit_list, wants_gradient
from strobe.kernels.triton_diagonal.operator import diagonal_scan


def refusal(signals: DiagonalSignals, carry: DiagonalCarry, readers: Tensor | None) -> str | None:
    """Why the kernel cannot run these, in words; None where it can."""
    given = {**signals._asdict(), "the carry": carry.h, "readers": readers}
    return why_not_tensors({n: x.real if x is not None and x.is_complex() else x for n, x in given.items()})


def takes(edit: Edit, signals: DiagonalSignals, carry: DiagonalCarry) -> bool:
    """Whether the kernel honours `edit` itself: not one that removes a direction over channels, of which a program
    holds some only, and none where a gradient is wanted, which autograd takes through the edit."""
    if wants_gradient(*signals, carry.h, edit.value) or edit.field not in (None, "h"):
        return False
    return edit.kind != "project_out"


def run(
    signals: DiagonalSignals,
    carry: DiagonalCarry,
    positions: list[int],
    readers: Tensor | None,
    edits: Sequence[EditsAt],
) -> Segment:
    """See `strobe.kernels.scan.DeviceBackend`. Answers in the dtype the inputs promote to, as the other backends do."""
    dtype = reduce(torch.promote_types, (x.dtype for x in (*signals, carry.h)))
    # Operands of one kind: a real `a` may decay a complex carry. Sums are float32 whatever they come in.
    a, b, h = (x.to(dtype) if dtype.is_complex else x for x in (*signals, carry.h))
    h = h.broadcast_to(b.shape[0], b.shape[2])
    here = edit_list(edits, DiagonalCarry(h if dtype.is_complex else h.float()))
    every, last, captured = diagonal_scan(a.expand(b.shape), b, h, *here, positions if edits else [])
    every = every.to(dtype)
    if not edits:
        last, captured = every[:, -1], every[:, positions]
    return Segment(
        read=every,
        carry=DiagonalCarry(last.to(dtype)),
        captured=DiagonalCarry(captured.to(dtype)) if positions else None,
        readers=None if readers is None else answer(every, readers),
    )
