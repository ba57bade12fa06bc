"""What one forward pass asks of the mixers: where to start, where to look, what to edit, and what came out.

A Hugging Face block hands its mixer only activations, so the request cannot travel as an argument. It is set on the
mixers for the duration of the pass, by `running`, and taken off again whatever happens.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from strobe.kernels import Edit


@dataclass
class Run:
    """One forward pass over `time` tokens.

    `carries`: the carry each mixer starts from, by mixer name (missing: its initial carry).
    `looks`: absolute positions someone observes. `edits`: by mixer name. `mask` [batch, time]: False at padding.
    `offset`: how many tokens went in before this pass.
    `keeps`: whether someone goes on from this pass. After it, `ran` holds the scan backend that each mixer used, and
    `after`, if it keeps, each mixer's last carry; otherwise a layer's carry is gone once the layer is done, so that a
    deep model needs no more memory for it than a shallow one.
    """

    carries: Mapping[str, Any] = field(default_factory=dict)
    looks: Sequence[int] = ()
    edits: Mapping[str, Sequence[Edit]] = field(default_factory=dict)
    mask: Tensor | None = None
    backend: str = "auto"
    offset: int = 0
    keeps: bool = True
    after: dict[str, Any] = field(default_factory=dict)
    ran: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str, carry: Any) -> None:
        """Put a mixer's last carry into `after`, if this pass keeps any."""
        if self.keeps:
            self.after[name] = carry


@contextmanager
def running(mixers: Mapping[str, Any], run: Run) -> Iterator[Run]:
    """Set `run` on every mixer for the duration of the block."""
    before = {name: mixer.run for name, mixer in mixers.items()}
    for mixer in mixers.values():
        mixer.run = run
    try:
        yield run
    finally:
        for name, mixer in mixers.items():
            mixer.run = before[name]
