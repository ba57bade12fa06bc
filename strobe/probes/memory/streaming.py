"""Long inputs in pieces: the carry goes from piece to piece, and nothing else is kept, so memory does not grow.

A model with attention keeps its keys and values, which do grow with the length; only its recurrent layers are flat.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from strobe.models.state import ModelState
from strobe.models.training import IGNORED

Tick = Callable[[int, int, str], None]
PIECE = 4096
"""Tokens that run at once: long enough that starting a pass costs nothing, short enough to hold their logits."""


@dataclass(frozen=True)
class Piece:
    """Tokens [start, stop) of a stream: `logits` [batch, stop - start, d_vocab], captured memories by layer
    [batch, n, ...] at `positions` (counted from the stream's start), and `targets` [batch, stop - start]."""

    start: int
    stop: int
    logits: Tensor
    targets: Tensor | None
    positions: list[int] = field(default_factory=list)
    memories: Mapping[int, Tensor] = field(default_factory=dict)

    def moved(self, by: int) -> "Piece":
        """The same piece as part of a stream that began `by` tokens earlier."""
        at = [p + by for p in self.positions]
        return replace(self, start=self.start + by, stop=self.stop + by, positions=at)


def as_inputs(model: Any, inputs: Any) -> Tensor:
    """`inputs` as [batch, time] ids or [batch, time, channels] numbers on the model's device. Raises ValueError for
    another shape or none."""
    given = torch.as_tensor(np.asarray(inputs) if isinstance(inputs, list | tuple) else inputs)
    given = given[None] if given.ndim == 1 else given
    if given.ndim < 2 or given.is_floating_point() != (given.ndim == 3) or not given.shape[1]:
        raise ValueError(
            f"inputs of shape {tuple(given.shape)} and type {given.dtype} were given; give token ids [batch, time], or "
            "numbers [batch, time, channels] where the model takes those"
        )
    return given.to(next(model.parameters()).device)


def next_token_targets(inputs: Tensor) -> Tensor | None:
    """The token after each, `IGNORED` at the last; None for inputs that are not tokens."""
    if inputs.is_floating_point():
        return None
    return F.pad(inputs[:, 1:], (0, 1), value=IGNORED)


def pieces(
    model: Any,
    inputs: Tensor,
    *,
    targets: Tensor | Literal["next"] | None = None,
    every: int | None = None,
    layers: Sequence[int] = (),
    looks: Callable[[int, int], list[int]] | None = None,
    hooks: Sequence[tuple[str, Callable[..., Any]]] = (),
    state: ModelState | None = None,
    piece: int = PIECE,
    tick: Callable[[int], None] | None = None,
) -> Iterator[Piece]:
    """Run `inputs` in pieces, each from the carry the last one left (the first from `state`).

    `targets`: "next" are the next tokens, as `next_token_targets` has them, of which no copy is made.
    `every`: capture the memory of `layers` after each `every`-th token. `looks(start, stop)`: positions of the stream
    at which hooks on ``hook_carry`` are called. `hooks`: as `run_with_hooks` takes them.
    """
    length = piece if every is None else max(every, piece // every * every)
    names = {layer: f"blocks.{layer}.mixer.hook_state" for layer in layers}
    seen = 0 if state is None else state.seen
    for start in range(0, inputs.shape[1], length):
        stop = min(start + length, inputs.shape[1])
        captured = list(range(start + every - 1, stop, every)) if every else []
        wanted = sorted(set(captured) | set(looks(start, stop) if looks else ()))
        here = inputs[:, start:stop]
        acted = {seen + p for p in looks(start, stop)} if looks else set()
        # A carry hook with no look in this piece would never fire, which the model takes for a mistake.
        carried = [(n, _at_looks(f, acted) if n.endswith("hook_carry") else f)
                   for n, f in hooks if wanted or not n.endswith("hook_carry")]  # fmt: skip
        asked = [p - start for p in wanted]
        with torch.no_grad():
            (logits, state), cache = model.run_with_cache(
                here,
                names_filter=list(names.values()) if captured and names else [],
                states=asked or None,
                state=state,
                return_type="state",
                offset=seen + start,
                fwd_hooks=carried,
                return_cache_object=False,
            )
        kept = [wanted.index(p) for p in captured]
        memories = {} if not captured else {i: _at(cache[n], kept) for i, n in names.items()}
        yield Piece(start, stop, logits, _part(inputs, targets, start, stop), captured, memories)
        if tick is not None:
            tick(stop)


def _part(inputs: Tensor, targets: Tensor | Literal["next"] | None, start: int, stop: int) -> Tensor | None:
    if targets is None or isinstance(targets, Tensor):
        return None if targets is None else targets[:, start:stop]
    after = next_token_targets(inputs[:, start : stop + 1])
    return None if after is None else after[:, : stop - start]


def _at_looks(f: Callable[..., Any], positions: set[int]) -> Callable[..., Any]:
    """A carry hook that leaves the carry alone where it is captured and not looked at: the model calls it at both."""
    return lambda carry, hook: f(carry, hook=hook) if hook.position in positions else None


def _at(memory: Tensor, kept: list[int]) -> Tensor:
    return memory if len(kept) == memory.shape[1] else memory[:, kept]


def losses(piece: Piece) -> tuple[Tensor, Tensor, Tensor]:
    """(nats, whether right, whether scored) of each token of `piece`, [batch, time]; nats are 0 where not scored."""
    assert piece.targets is not None
    scored = piece.targets != IGNORED
    nats = F.cross_entropy(
        piece.logits.flatten(0, 1).float(), piece.targets.flatten(), ignore_index=IGNORED, reduction="none"
    ).view_as(piece.targets)
    logits, targets = piece.logits, piece.targets.clamp(min=0)
    # A right answer is as large as the largest; which one is the largest, asked everywhere, costs four times as much.
    right = scored & (logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) == logits.amax(-1))
    right[right.clone()] = logits[right].argmax(-1) == targets[right]
    return nats, right, scored


class WindowMeans:
    """Mean loss and accuracy over windows of `width` tokens, from pieces that need not end where a window does."""

    def __init__(self, time: int, width: int) -> None:
        self.width, n = width, -(-time // width)
        self._sums = torch.zeros(3, n, dtype=torch.float64)

    def add(self, piece: Piece) -> None:
        """Count the scored tokens of `piece`."""
        window = torch.arange(piece.start, piece.stop) // self.width
        for row, values in zip(self._sums, losses(piece), strict=True):
            row.index_add_(0, window, values.double().sum(0).cpu())

    @property
    def loss(self) -> np.ndarray:
        """Nats per scored token [windows]; NaN where none was."""
        return self._mean(0)

    @property
    def accuracy(self) -> np.ndarray:
        """Share of scored tokens answered rightly [windows]; NaN where none was."""
        return self._mean(1)

    def _mean(self, row: int) -> np.ndarray:
        count = self._sums[2].numpy()
        return np.divide(self._sums[row].numpy(), count, out=np.full(len(count), np.nan), where=count > 0)


def train_length_of(model: Any, given: int | None) -> int:
    """`given`, or the length the model's configuration says it was trained on. Raises ValueError where neither is."""
    said = given if given is not None else getattr(getattr(model, "config", None), "n_ctx", None)
    said = said if said is not None else getattr(model.cfg, "n_ctx", None)
    if said is None or said < 1:
        raise ValueError(
            f"the training length of {model.model_name} is needed to say what lies beyond it; its configuration says "
            f"{said!r}; give train_length"
        )
    return int(said)
