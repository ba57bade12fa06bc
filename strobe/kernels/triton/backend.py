"""A family's backend "triton": imported when it is first asked for, and able to say why it cannot run.

A family registers ``TritonBackend(load)``, where `load` imports ``strobe.kernels.<family>.triton`` and returns it; an
import statement, not `import_module`, because torch.compile follows the one and not the other. That module defines

- ``run(signals, carry, positions, readers, edits)``: as `strobe.kernels.scan.Backend`, and `edits`, the edits (by
  position, local, ascending) that the kernel honours itself;
- ``refusal(signals, carry, readers)``: why it cannot run these, in words, or None;
- ``takes(edit, signals, carry)``: whether the kernel honours this edit. The scan is cut at every other one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from strobe.kernels.edits import Edit, EditsAt
from strobe.kernels.scan import Segment
from strobe.kernels.triton.device import why_not_on
from strobe.kernels.triton.segments import wants_gradient


@dataclass(frozen=True)
class TritonBackend:
    """The backend in the module that `load` returns; it is called when the backend runs and not before."""

    load: Callable[[], Any]

    def __call__(self, signals: Any, carry: Any, positions: list[int], readers: Tensor | None) -> Segment:
        return self.with_edits(signals, carry, positions, readers, ())

    def with_edits(
        self, signals: Any, carry: Any, positions: list[int], readers: Tensor | None, edits: Sequence[EditsAt]
    ) -> Segment:
        """Run with `edits` honoured inside the kernel."""
        return self.load().run(signals, carry, positions, readers, edits)

    def takes(self, edit: Edit, signals: Any, carry: Any) -> bool:
        """Whether the kernel honours `edit` itself."""
        return self.load().takes(edit, signals, carry)

    def inside(self, edits: Sequence[EditsAt], signals: Any, carry: Any) -> list[EditsAt]:
        """Those of `edits` that the kernel honours itself."""
        taken, learned = [], False
        for here in edits:
            # A kernel judges by the first carry. After an edit that is learned the carry has a gradient that it has
            # not seen.
            if not learned and all(self.takes(edit, signals, carry) for edit in here.edits):
                taken.append(here)
            learned = learned or any(wants_gradient(edit.value) for edit in here.edits)
        return taken

    def refusal(self, device: Any, signals: Any = None, carry: Any = None, readers: Tensor | None = None) -> str | None:
        """Why it cannot run on `device`, or there with these signals; None where it can."""
        reason = why_not_on(device)
        if reason is not None or signals is None:
            return reason
        return self.load().refusal(signals, carry, readers)
