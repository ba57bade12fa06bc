"""The `triton` backend of `selective`: the kernel of `strobe.kernels.triton_selective`."""

from collections.abc import Sequence

from torch import Tensor

from strobe.kernels.edits import Edit, EditsAt
from strobe.kernels.scan import Segment
from strobe.kernels.selective.reference import SelectiveCarry, SelectiveSignals
from strobe.kernels.triton.device import why_not_shapes, why_not_tensors
from strobe.kernels.triton.segments import edit_list, wants_gradient
from strobe.kernels.triton_selective.launch import LARGEST_STATE
from strobe.kernels.triton_selective.operator import selective_scan


def refusal(signals: SelectiveSignals, carry: SelectiveCarry, readers: Tensor | None) -> str | None:
    """Why the kernel cannot run these, in words; None where it can."""
    given = {**signals._asdict(), "the carry": carry.h, "readers": readers}
    if (reason := why_not_tensors(given)) is not None:
        return reason
    state = signals.A.shape[1]
    if state > LARGEST_STATE:
        return f"a channel has {state} entries of state and the kernel holds {LARGEST_STATE}; take backend='chunked'"
    x, delta, B, C, A = signals
    per_state = (*x.shape[:2], state)
    return why_not_shapes(
        {"delta": (delta, x.shape), "B": (B, per_state), "C": (C, per_state), "A": (A, (x.shape[2], state))}
    )


def takes(edit: Edit, signals: SelectiveSignals, carry: SelectiveCarry) -> bool:
    """Whether the kernel honours `edit` itself: not one that removes a direction over channels, of which a program
    holds some only, and none where a gradient is wanted, which autograd takes through the edit."""
    if wants_gradient(*signals, carry.h, edit.value) or edit.field not in (None, "h"):
        return False
    if edit.kind != "project_out":
        return True
    # A direction of as many entries as there are channels is one over channels: see `Edit.value`.
    shape = tuple(getattr(edit.value, "shape", ()))
    channels = carry.h.shape[1] if edit.heads is None else len(edit.heads)
    return shape == (carry.h.shape[2],) and shape != (channels,)


def run(
    signals: SelectiveSignals,
    carry: SelectiveCarry,
    positions: list[int],
    readers: Tensor | None,
    edits: Sequence[EditsAt],
) -> Segment:
    """See `strobe.kernels.scan.DeviceBackend`."""
    h = carry.h.broadcast_to(signals.x.shape[0], *signals.A.shape)
    u = readers.unsqueeze(1) if readers is not None and readers.ndim == 2 else readers
    here = edit_list(edits, SelectiveCarry(h.float()))
    keep = wants_gradient(*signals, h, readers)
    read, last, captured, answers, _ = selective_scan(*signals, h, u, *here, positions, keep)
    return Segment(
        read=read,
        carry=SelectiveCarry(last),
        captured=SelectiveCarry(captured) if positions else None,
        readers=None if readers is None else answers,
    )
