"""The `triton` backend of `elman`, `gru`, `lstm` and `slstm`; which of them it is, their signals say.

W x + b is one product before the launch and a reader's answers one after it, as the kernel emits every h. Inside the
kernel the carry is float32; what leaves it has the dtype of the weights, as with the other backends, and for `slstm`
stays as it is.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from strobe.kernels.edits import Edit, EditsAt, apply_edit
from strobe.kernels.rnn.autocast import outside_autocast
from strobe.kernels.rnn.blocks import heads_of
from strobe.kernels.rnn.elman import ElmanSignals
from strobe.kernels.rnn.gru import GRUSignals
from strobe.kernels.rnn.lstm import LSTMSignals
from strobe.kernels.rnn.slstm import SLSTMSignals
from strobe.kernels.scan import Segment
from strobe.kernels.triton.device import why_not_tensors
from strobe.kernels.triton_rnn.launch import CELLS, LARGEST_DIM
from strobe.kernels.triton_rnn.operator import rnn_scan

_NAMES = {ElmanSignals: "elman", GRUSignals: "gru", LSTMSignals: "lstm", SLSTMSignals: "slstm"}
_KINDS = {"set": 1, "add": 2, "scale": 3, "project_out": 4}


def refusal(signals: Any, carry: Any, readers: Tensor | None) -> str | None:
    """Why the kernel cannot run these, in words; None where it can."""
    tensors = {name: x for name, x in signals._asdict().items() if name != "mask"}
    carried = {f"the carry's {name}": x for name, x in carry._asdict().items()}
    if (reason := why_not_tensors({**tensors, **carried, "readers": readers})) is not None:
        return reason
    if (dim := signals.R.shape[1]) > LARGEST_DIM:
        return (
            f"a head of R of {dim} channels (a dense R is one head) was given and the kernel takes {LARGEST_DIM}; take "
            "backend='chunked'"
        )
    return None


def takes(edit: Edit, signals: Any, carry: Any) -> bool:
    """Whether the kernel honours `edit` itself: not where the gradient of its value is wanted, which autograd takes
    through the cut, and no direction but one over the channels of the only head: heads do not meet in a launch."""
    value = edit.value
    if torch.is_grad_enabled() and isinstance(value, Tensor) and value.requires_grad:
        return False
    if edit.field not in (None, *carry._fields):
        return False
    one_head = signals.R.shape[1] == carry[0].shape[1]
    return edit.kind != "project_out" or (one_head and getattr(value, "ndim", 0) == 1)


@outside_autocast
def run(signals: Any, carry: Any, positions: list[int], readers: Tensor | None, edits: Sequence[EditsAt]) -> Segment:
    """See `strobe.kernels.scan.DeviceBackend`."""
    name = _NAMES[type(signals)]
    gates, dim = CELLS[name].gates, signals.R.shape[1]
    heads = heads_of(signals.R, gates)
    batch = signals.x.shape[0]
    fields = [x.broadcast_to(batch, heads * dim) for x in carry]
    first = torch.stack([x.float() for x in fields], 1).unflatten(-1, (heads, dim))
    b = getattr(signals, "b_r", None)
    pre = F.linear(signals.x, signals.W, signals.b).unflatten(-1, (gates, heads, dim))
    R = signals.R.unflatten(0, (gates, heads, dim))
    values, kinds, edited = _edit_list(edits, carry, (heads, dim))
    keep = torch.is_grad_enabled() and any(x.requires_grad for x in (pre, R, first, *(() if b is None else (b,))))
    read, last, captured, *_ = rnn_scan(
        name,
        pre,
        R,
        None if b is None else b.unflatten(0, (gates, heads, dim)),
        signals.mask,
        first,
        values,
        kinds,
        edited,
        positions,
        keep,
    )
    read, last, captured = read.flatten(-2), last.flatten(-2), captured.flatten(-2)
    dtype = torch.float32 if name == "slstm" else signals.R.dtype
    return Segment(
        read=read.to(dtype),
        carry=type(carry)(*last.to(dtype).unbind(1)),
        captured=type(carry)(*captured.to(dtype).unbind(2)) if positions else None,
        readers=None if readers is None else (read @ readers.T.float()).to(dtype),
    )


def _edit_list(
    edits: Sequence[EditsAt], carry: Any, sizes: tuple[int, int]
) -> tuple[Tensor | None, Tensor | None, list[int]]:
    """`edits` as the kernel takes them: values [n_edits, batch, heads, dim], kinds [n_edits, fields, heads, dim], and
    their positions; `sizes` is (heads, dim). Raises ValueError as `apply_edit` does, asked on an empty carry first."""
    flat = [(here.position, edit) for here in edits for edit in here.edits]
    if not flat:
        return None, None, []
    h = carry[0]
    empty = type(carry)(*(torch.zeros_like(x, dtype=torch.float32) for x in carry))
    values, kinds = [], []
    for _, edit in flat:
        apply_edit(edit, empty)
        channels = list(range(h.shape[1])) if edit.heads is None else list(edit.heads)
        x = torch.as_tensor(edit.value, device=h.device, dtype=torch.float32).detach()
        if edit.kind == "project_out":
            x = x / torch.linalg.vector_norm(x)
        whole = torch.zeros_like(h, dtype=torch.float32)
        whole[:, channels] = x.broadcast_to(h.shape[0], len(channels))
        kind = torch.zeros(len(carry), h.shape[1], dtype=torch.int32, device=h.device)
        kind[carry._fields.index(edit.field or carry._fields[0]), channels] = _KINDS[edit.kind]
        values.append(whole)
        kinds.append(kind)
    positions = [position for position, _ in flat]
    return torch.stack(values).unflatten(-1, sizes), torch.stack(kinds).unflatten(-1, sizes), positions
