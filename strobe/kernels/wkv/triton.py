"""The `triton` backend of `wkv`: the kernel of `strobe.kernels.triton_wkv`."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from strobe.kernels.edits import Edit, EditsAt
from strobe.kernels.scan import Segment, scan
from strobe.kernels.triton.device import why_not_shapes, why_not_tensors
from strobe.kernels.triton.segments import edit_list, wants_gradient
from strobe.kernels.triton_wkv.operator import wkv_scan
from strobe.kernels.wkv import WKV
from strobe.kernels.wkv.reference import WKVCarry, WKVSignals, answer


def refusal(signals: WKVSignals, carry: WKVCarry, readers: Tensor | None) -> str | None:
    """Why the kernel cannot run these, in words; None where it can."""
    numbers = {name: x for name, x in signals._asdict().items() if name != "mask"}
    fields = {f"the carry's {name}": x for name, x in carry._asdict().items()}
    reason = why_not_tensors({**numbers, **fields, "readers": readers})
    if reason is None and signals.mask is not None and signals.mask.device != signals.k.device:
        return f"the mask is on {signals.mask.device} and the keys on {signals.k.device}; move them to one"
    k, channels = signals.k, signals.k.shape[2:]
    return reason or why_not_shapes({"v": (signals.v, k.shape), "w": (signals.w, channels), "u": (signals.u, channels)})


def takes(edit: Edit, signals: WKVSignals, carry: WKVCarry) -> bool:
    """Whether the kernel honours `edit` itself: not one that removes a direction over channels, of which a program
    holds some only, and none where a gradient is wanted, which autograd takes through the edit."""
    if wants_gradient(*signals, *carry, edit.value) or edit.field not in (None, *WKVCarry._fields):
        return False
    return edit.kind != "project_out"


def run(
    signals: WKVSignals,
    carry: WKVCarry,
    positions: list[int],
    readers: Tensor | None,
    edits: Sequence[EditsAt],
) -> Segment:
    """See `strobe.kernels.scan.DeviceBackend`. Answers in float32, as the other backends do for what it takes."""
    gradient = wants_gradient(*signals, *carry)
    if gradient and edits:
        return _cut(signals, carry, positions, readers, edits)
    k, v, w, u, mask = signals
    first = WKVCarry(*(x.float().broadcast_to(k.shape[0], k.shape[2]) for x in carry))
    here = edit_list(edits, first)
    read, every, last, captured = wkv_scan(
        k, v, w, u, mask, torch.stack(first, 1), *here, [] if gradient else positions, gradient or readers is not None
    )
    if gradient:
        last, captured = every[:, -1], every[:, positions]
    return Segment(
        read=read,
        carry=WKVCarry(*last.unbind(1)),
        captured=WKVCarry(*captured.unbind(2)) if positions else None,
        readers=None if readers is None else answer(every[:, :, 0], every[:, :, 1], readers),
    )


def _cut(
    signals: WKVSignals, carry: WKVCarry, positions: list[int], readers: Tensor | None, edits: Sequence[EditsAt]
) -> Segment:
    # Edits were taken for the scan's first carry. This one has a gradient, from an edit before it, so they are not now.
    flat = [replace(edit, position=at.position) for at in edits for edit in at.edits]
    found = scan(WKV, signals, carry, capture=positions, edits=flat, readers=readers, backend="triton")
    return Segment(found.read, found.carry, found.captured, found.readers)
