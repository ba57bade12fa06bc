"""Reads that see the last few tokens only, by state difference: h_t^(w) = h_t - alpha_{t-w+1:t} h_{t-w}.

Chen et al. 2024 (Stuffed Mamba, arXiv 2410.07145, "sliding window by state difference"), there for Mamba-2. What is
subtracted is itself the memory of a recurrence: the same transitions, and each token writing what the token `w` earlier
wrote, with the `w` transitions since applied to it (`strobe.probes.memory.late_writes`). So the windowed read is one
scan less another, and no carry is kept for later. That holds for every memory linear in its writes, ours beyond the
paper's decay: `selective` decays each entry of its matrix by itself, and the delta rule's erasing turns a late write's
key and leaves its value.

RWKV-4's read is a quotient whose numerator and denominator would both be differences; where an old key was large they
cancel to nothing. There the window is summed as it is (`strobe.probes.memory.wkv_window`). A cell that is nonlinear in
its carry has no such difference, and is refused.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from strobe.probes.memory.late_writes import GONE
from strobe.probes.memory.scan_signals import changing, refuse_nonlinear
from strobe.probes.memory.wkv_window import NOTHING, windowed_wkv


@contextmanager
def windowed_reads(model: Any, layers: list[int], window: int) -> Iterator[None]:
    """While open, the reads of `layers` see `window` tokens, across pieces of one stream; open it anew for another.

    Raises ValueError for a window below 1, or, at once, for a family without a state difference.
    """
    if window < 1:
        raise ValueError(f"a window of {window} tokens was asked for; give 1 or more")
    past = {i: _Past(model.mixers[f"blocks.{i}.mixer"], window) for i in layers}

    def watch(layer: int, family: str, inputs: Any) -> Any:
        past[layer].signals = inputs
        return inputs

    with ExitStack() as stack:
        stack.enter_context(changing(model, watch, layers))
        hooks = [(f"blocks.{i}.mixer.hook_read", past[i].narrow) for i in layers]
        stack.enter_context(model.hooks(fwd_hooks=hooks))
        yield


class _Past:
    """The last `window` tokens' signals, which wait, and the memory that they enter when the window has passed them."""

    def __init__(self, mixer: Any, window: int) -> None:
        self.family, self.window = mixer.family, window
        self.signals: Any = None
        self._waiting: dict[str, Tensor] = {}
        self._carry: Any = None
        refuse_nonlinear(self.family.name, "a sliding window by state difference")
        if self.family.name not in GONE and self.family.name != "wkv":
            raise ValueError(
                f"a sliding window by state difference was asked for in the family {self.family.name!r}, whose late "
                "writes nobody has named here; add them, or reset the carry instead"
            )

    def narrow(self, read: Tensor, hook: Any) -> Tensor:
        """The read of the same tokens, of the window alone."""
        joined = self._joined(read.shape[0])
        if self.family.name == "wkv":
            return windowed_wkv(joined, self.window).to(read.dtype)
        gone, self._carry = GONE[self.family.name](joined, self.window, self._carry)
        return read - gone.to(read.dtype)

    def _joined(self, batch: int) -> Any:
        """The signals of the waiting tokens and of these; constants and absent ones as they are."""
        here = self.signals._asdict()
        if here.get("mask") is not None:
            raise ValueError("a sliding window was asked for of an input with padding; give rows of one length")
        for name, x in here.items():
            if x is None or name in self.family.constants:
                continue
            empty = NOTHING.get(name, 0.0) if self.family.name == "wkv" else 0.0
            old = self._waiting.get(name)
            old = x.new_full((batch, self.window, *x.shape[2:]), empty) if old is None else old
            here[name] = torch.cat([old, x], 1)
            self._waiting[name] = here[name][:, -self.window :]
        return self.signals._replace(**here)
