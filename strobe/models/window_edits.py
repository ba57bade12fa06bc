"""What is added to short windows, at every token at once instead of by a cut at each edit.

An addition to the window after token p is seen by the tokens behind p until it has slid out. With v_p what is added
there and j = 0 the oldest of `width` slots, the window after token t has

    shift_t[j] = sum over k = 0..width-1-j of v_{t-k}[j + k]

more than the one its stream gives; with the same v after every token that is the sum of v[m] over m >= j. A stream does
not depend on a window, so all windows are known before any token is projected, and the tokens that see a shift are
projected as rows of one batch, each from its own window. That costs a projection of those tokens, where a cut projects
all that follow it. Ours; exact, as an addition is linear in the window and nothing else is assumed.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from strobe.kernels import Edit
from strobe.kernels.edits import apply_edit


def can_be_added(edits: Sequence[Edit], windows: Sequence[str]) -> bool:
    """Whether `edits` have windows among their fields, and only add to them."""
    kinds = {e.kind for e in edits if e.field in windows}
    return kinds == {"add"}


def window_shifts(edits: Sequence[Edit], carry: Any, windows: Sequence[str], time: int) -> dict[str, Tensor]:
    """What the windows after each of `time` tokens hold more for the additions `edits`: [batch, time, width, channels]
    by field. `carry`: that before the first token, for shapes."""
    nothing = type(carry)(*(torch.zeros_like(x) for x in carry))
    shifts = {}
    for window in windows:
        zero = getattr(nothing, window)
        added = [zero] * time
        for edit in edits:
            if edit.field == window:
                added[edit.position] = added[edit.position] + getattr(apply_edit(edit, nothing), window)
        each, width = torch.stack(added, 1), zero.shape[1]
        shift = torch.zeros_like(each)
        for k in range(min(width, time)):
            shift[:, k:, : width - k] += each[:, : time - k, k:]
        shifts[window] = shift
    return shifts


def shifted_tokens(edits: Sequence[Edit], carry: Any, windows: Sequence[str], time: int) -> list[int]:
    """The tokens that may see a shift: those within a window's width behind an edit of it."""
    seen = {
        edit.position + k
        for edit in edits
        if edit.field in windows
        for k in range(1, getattr(carry, str(edit.field)).shape[1] + 1)
    }
    return sorted(t for t in seen if t < time)
