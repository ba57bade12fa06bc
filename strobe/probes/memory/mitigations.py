"""Interventions on what a model carries, to be switched on one at a time: each says what it does to a run.

Training-free ones of Chen et al. 2024 (Stuffed Mamba, arXiv 2410.07145): reduced insertion and raised decay, the
sliding window by state difference, and from its first version the normalisation of a state that has grown too large
(there per token; here every `every` tokens, because a look is a cut). Ours: resets and their controls (the short
windows reset instead, the memory swapped for another text's), and the planted positive control.

The released code's `use_state_norm` multiplies by norm / limit and so amplifies; here it is divided.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from strobe.probes.memory import scan_signals
from strobe.probes.memory.sliding_window import windowed_reads
from strobe.probes.states import recurrent_layers

CarryHook = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Mitigation:
    """One intervention: `open(model)` is a context in which the model runs with it, `hooks(model)` what the run must
    be given, and `looks(start, stop)` the positions at which its carry hooks are called. `layers`: None for all."""

    layers: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """What figures call it."""
        raise NotImplementedError

    def open(self, model: Any) -> Any:
        """A context manager."""
        return nullcontext()

    def hooks(self, model: Any) -> list[tuple[str, CarryHook]]:
        """Hooks on ``hook_carry``, by name."""
        return []

    def looks(self, start: int, stop: int) -> list[int]:
        """Positions in [start, stop) at which the carry is looked at."""
        return []

    def applies(self, model: Any) -> bool:
        """Whether a run of one token with it is possible: some families' signals cannot say it."""
        d_input = getattr(getattr(model, "config", None), "d_input", 0)
        one = torch.zeros(1, 1, d_input) if d_input else torch.zeros(1, 1, dtype=torch.long)
        try:
            with torch.no_grad(), self.open(model):
                model(one.to(next(model.parameters()).device))
        except ValueError:
            return False
        return True

    def chosen(self, model: Any) -> list[int]:
        """The layers it acts on. Raises ValueError for one without a recurrence."""
        have = recurrent_layers(model)
        wanted = have if self.layers is None else list(self.layers)
        if not wanted or set(wanted) - set(have):
            raise ValueError(
                f"{self.name!r} was asked for in layers {wanted}; layers of {model.model_name} with a recurrent carry: "
                f"{', '.join(map(str, have)) or 'none'}"
            )
        return wanted

    def __post_init__(self) -> None:
        """Raises ValueError for boundaries that are not at least one token apart."""
        every = getattr(self, "every", 1)
        if every < 1:
            raise ValueError(f"an intervention every {every} tokens was asked for; give 1 or more")

    def settings(self) -> dict[str, Any]:
        """What decides its numbers, as plain values."""
        plain = {k: v for k, v in vars(self).items() if isinstance(v, int | float | str | tuple | type(None))}
        return {"kind": type(self).__name__, **plain}


@dataclass(frozen=True, kw_only=True)
class Reset(Mitigation):
    """Put the carry back to its start after every `every`-th token.

    `part`: "memory", the field the scan owns (with all that belongs to it); "windows", the convolution's and the token
    shift's; "all".
    """

    every: int
    part: Literal["memory", "windows", "all"] = "memory"

    @property
    def name(self) -> str:
        """What figures call it."""
        return f"reset {self.part} every {self.every}"

    def looks(self, start: int, stop: int) -> list[int]:
        """After each boundary."""
        return _multiples(self.every, start, stop)

    def hooks(self, model: Any) -> list[tuple[str, CarryHook]]:
        """One a layer."""
        return [(f"blocks.{i}.mixer.hook_carry", _resetting(model.mixers[f"blocks.{i}.mixer"], self.part))
                for i in self.chosen(model)]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Swap(Mitigation):
    """Give each row, after every `every`-th token, the memory of the next row: as large, as old, of another text.

    The control of `Reset`: it disturbs the carry as often, and leaves something as stale in it.
    """

    every: int

    @property
    def name(self) -> str:
        """What figures call it."""
        return f"swap memory every {self.every}"

    def looks(self, start: int, stop: int) -> list[int]:
        """After each boundary."""
        return _multiples(self.every, start, stop)

    def hooks(self, model: Any) -> list[tuple[str, CarryHook]]:
        """One a layer. Raises ValueError, when called, for a batch of one."""
        return [(f"blocks.{i}.mixer.hook_carry", _swapping(model.mixers[f"blocks.{i}.mixer"]))
                for i in self.chosen(model)]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NormLimit(Mitigation):
    """Divide the memory of a head by norm / limit where its norm is above the limit, every `every` tokens.

    `limits`: by layer, the largest norm of each head [heads] (`training_norms` measures it).
    """

    limits: Mapping[int, np.ndarray] = field(default_factory=dict)
    every: int

    @property
    def name(self) -> str:
        """What figures call it."""
        return f"norm limited every {self.every}"

    def looks(self, start: int, stop: int) -> list[int]:
        """After every `every`-th token."""
        return _multiples(self.every, start, stop)

    def hooks(self, model: Any) -> list[tuple[str, CarryHook]]:
        """One a layer. Raises ValueError where a layer has no limit."""
        chosen = self.chosen(model)
        if missing := [i for i in chosen if i not in self.limits]:
            raise ValueError(
                f"{self.name!r} was asked for in layers {missing}, and it has limits for {sorted(self.limits)}; "
                "measure them with training_norms"
            )
        return [(f"blocks.{i}.mixer.hook_carry", _limiting(model.mixers[f"blocks.{i}.mixer"], self.limits[i]))
                for i in chosen]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Insertion(Mitigation):
    """Every decay times `decay` and every write times `write`: the paper's reduced retention and insertion, with its
    .9999 and .75 as defaults (chosen there by validation loss, for Mamba-2)."""

    decay: float = 0.9999
    write: float = 0.75

    @property
    def name(self) -> str:
        """What figures call it."""
        return f"decay x {self.decay:g}, write x {self.write:g}"

    @contextmanager
    def open(self, model: Any) -> Iterator[None]:
        """Raises ValueError, when the model runs, for a family whose signals cannot say it."""

        def change(layer: int, family: str, inputs: Any) -> Any:
            return scan_signals.scaled(family, inputs, self.decay, self.write)

        with scan_signals.changing(model, change, self.chosen(model)):
            yield


@dataclass(frozen=True, kw_only=True)
class SlidingWindow(Mitigation):
    """Reads see the last `window` tokens only: h_t - alpha_{t-w+1:t} h_{t-w}, exact for every family linear in
    its carry; under the delta rule it takes `window` products a token."""

    window: int

    @property
    def name(self) -> str:
        """What figures call it."""
        return f"window of {self.window} by state difference"

    @contextmanager
    def open(self, model: Any) -> Iterator[None]:
        """Raises ValueError for a family that is nonlinear in its carry."""
        with windowed_reads(model, self.chosen(model), self.window):
            yield


@dataclass(frozen=True, kw_only=True)
class Planted(Mitigation):
    """The positive control, the reverse of a mitigation: `heads` never forget and their write has a mean. Ours."""

    heads: tuple[int, ...] = (0,)
    mean: float = 1.0

    @property
    def name(self) -> str:
        """What figures call it."""
        return f"planted: heads {', '.join(map(str, self.heads))} never forget"

    @contextmanager
    def open(self, model: Any) -> Iterator[None]:
        """Raises ValueError for a layer nonlinear in its carry."""

        def change(layer: int, family: str, inputs: Any) -> Any:
            return scan_signals.planted(family, inputs, list(self.heads), self.mean)

        with scan_signals.changing(model, change, self.chosen(model)):
            yield


def _resetting(mixer: Any, part: str) -> CarryHook:
    owned = set(mixer.Memory._fields)

    def reset(carry: Any, hook: Any) -> Any:
        # The windows carry the activations' dtype, the memory at least float32; a start made for one fits the other.
        start = mixer.init_carry(carry[0].shape[0], carry[0].dtype, carry[0].device)
        fields = [f for f in carry._fields if part == "all" or (f in owned) == (part == "memory")]
        return carry._replace(**{f: getattr(start, f).to(getattr(carry, f).dtype) for f in fields})

    return reset


def _swapping(mixer: Any) -> CarryHook:
    def swap(carry: Any, hook: Any) -> Any:
        if carry[0].shape[0] < 2:
            raise ValueError("the memory was to be swapped for another row's, and there is one row; give two at least")
        return carry._replace(**{f: getattr(carry, f).roll(1, 0) for f in mixer.Memory._fields})

    return swap


def _limiting(mixer: Any, limits: np.ndarray) -> CarryHook:
    def limit(carry: Any, hook: Any) -> Any:
        memory = getattr(carry, mixer.memory)
        by_head = memory.flatten(2) if memory.ndim == 4 else memory.flatten(1).unsqueeze(1)
        norm = by_head.norm(dim=-1)
        bound = torch.as_tensor(limits, device=norm.device, dtype=norm.dtype)
        factor = torch.where(norm > bound, bound / norm.clamp(min=torch.finfo(norm.dtype).tiny), 1.0)
        limited = (by_head * factor.unsqueeze(-1)).reshape(memory.shape)
        return carry._replace(**{mixer.memory: limited})

    return limit


def _multiples(every: int, start: int, stop: int) -> list[int]:
    return [p for p in range(start, stop) if p % every == every - 1]
