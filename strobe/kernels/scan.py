"""The scan contract: one function that runs any recurrence, shows any carry on the way, and lets you change it.

A family of recurrences says how one token changes its carry (`Family.step`, the definition) and offers backends that
do the same for a whole sequence. Everything else is here, once: positions, edits, readers, masks, choosing a backend.

Words. The *carry* at position t crosses from token t to token t+1: it is taken after t was written, so an edit of it
changes what later tokens see and never token t's own read. A *read* is what the scan returns for each token.
A *capture* asks for the carry at some positions. A *reader* is a constant vector in the query slot: its answer at
every token costs about one more query, and the carry itself is never materialised.

Shape letters: batch, time; the rest is the family's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from strobe.kernels.edits import Edit, EditsAt, apply_edit, edits_by_position
from strobe.kernels.positions import Positions, resolve_positions

Carry = Any
"""A NamedTuple of tensors [batch, ...]; the first field is the family's memory."""
Signals = Any
"""A NamedTuple of tensors [batch, time, ...], apart from the fields in `Family.constants`."""


class Segment(NamedTuple):
    """What a backend returns for one uninterrupted stretch of tokens."""

    read: Tensor
    """[batch, time, ...]"""
    carry: Carry
    """after the last token"""
    captured: Carry | None
    """each field [batch, n_positions, ...]; None where no position was asked for"""
    readers: Tensor | None
    """[batch, time, n_readers, ...]; None where there was no reader"""


@runtime_checkable
class Backend(Protocol):
    """Runs `signals` from `carry`. `positions` are absolute, ascending and without repeats."""

    def __call__(self, signals: Signals, carry: Carry, positions: list[int], readers: Tensor | None) -> Segment: ...


@runtime_checkable
class EditingBackend(Backend, Protocol):
    """A backend that honours edits itself."""

    def inside(self, edits: Sequence[EditsAt], signals: Signals, carry: Carry) -> Sequence[EditsAt]:
        """Those of `edits` that it honours itself; the scan is cut at the others."""
        ...

    def with_edits(
        self, signals: Signals, carry: Carry, positions: list[int], readers: Tensor | None, edits: Sequence[EditsAt]
    ) -> Segment:
        """As a call, with `edits` on the way. A capture at an edited position shows the edited carry."""
        ...


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend that runs in some places only; see `strobe.kernels.triton.backend`."""

    def refusal(
        self, device: torch.device, signals: Signals = None, carry: Carry = None, readers: Tensor | None = None
    ) -> str | None:
        """Why it cannot run on `device`, or there with these signals, in words; None where it can."""
        ...


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of recurrences that share one equation.

    `step(signals_t, carry)` is the definition: signals without the time axis in, (carry after the token, read) out.
    `init_carry(signals)` is the carry before the first token. `reader(carry, readers)` is what `readers` answer on
    one carry. `hold(signals, mask)` returns signals under which the carry passes unchanged through every token where
    ``mask`` [batch, time] is False. `transition` and `attention`, for families linear in the carry, are described in
    `strobe.kernels.linear`.
    """

    name: str
    step: Callable[[Signals, Carry], tuple[Carry, Tensor]]
    init_carry: Callable[[Signals], Carry]
    reader: Callable[[Carry, Tensor], Tensor]
    hold: Callable[[Signals, Tensor], Signals]
    backends: Mapping[str, Backend]
    constants: frozenset[str] = frozenset()
    transition: Callable[[Signals], Any] | None = None
    attention: Callable[[Signals], Tensor] | None = None

    def time(self, signals: Signals) -> int:
        """Number of tokens in `signals`."""
        return self.tokens(signals)[1]

    def tokens(self, signals: Signals) -> tuple[int, int]:
        """Sequences and tokens in each, (batch, time), of `signals`."""
        x = next(x for f, x in zip(signals._fields, signals, strict=True) if x is not None and f not in self.constants)
        return x.shape[0], x.shape[1]

    def slice(self, signals: Signals, start: int, stop: int) -> Signals:
        """The tokens [start, stop) of `signals`."""
        return type(signals)(
            *(
                x if x is None or f in self.constants else x[:, start:stop]
                for f, x in zip(signals._fields, signals, strict=True)
            )
        )

    def at(self, signals: Signals, position: int) -> Signals:
        """The signals of one token, without the time axis."""
        return type(signals)(
            *(
                x if x is None or f in self.constants else x[:, position]
                for f, x in zip(signals._fields, signals, strict=True)
            )
        )


@dataclass(frozen=True)
class ScanResult:
    """`read` [batch, time, ...]; `carry` after the last token; `captured` (fields [batch, n_positions, ...], in the
    order asked for); `readers` [batch, time, n_readers, ...]; `backend`, the one that ran."""

    read: Tensor
    carry: Carry
    captured: Carry | None = None
    readers: Tensor | None = None
    backend: str = field(default="")


def choose_backend(
    family: Family,
    backend: str,
    device: torch.device,
    signals: Signals = None,
    carry: Carry = None,
    readers: Tensor | None = None,
) -> str:
    """The backend that will run: "auto" takes triton on CUDA where the family's kernel can run the signals, else
    chunked, else reference. Without `signals` only the device is asked about.

    A backend asked for by name never falls back: ValueError says which ones the family has, or why it cannot run here.
    """
    if backend == "auto":
        order = ("triton", "chunked", "reference") if device.type == "cuda" else ("chunked", "reference")
        there = [name for name in order if name in family.backends]
        return next(name for name in there if _refusal(family.backends[name], device, signals, carry, readers) is None)
    if backend not in family.backends:
        raise ValueError(f"the family {family.name!r} has no backend {backend!r}; it has {', '.join(family.backends)}")
    if (reason := _refusal(family.backends[backend], device, signals, carry, readers)) is not None:
        raise ValueError(f"backend {backend!r} was asked for the family {family.name!r}: {reason}")
    return backend


def _refusal(run: Backend, device: torch.device, signals: Signals, carry: Carry, readers: Tensor | None) -> str | None:
    return run.refusal(device, signals, carry, readers) if isinstance(run, DeviceBackend) else None


def _fitting(mask: Tensor, size: tuple[int, int], device: torch.device) -> Tensor:
    """`mask` for every sequence and token. A kernel takes its strides from the signals, and would read past a smaller
    one."""
    if mask.device != device:
        raise ValueError(f"a mask on {mask.device} was given beside signals on {device}; move it there")
    if mask.ndim != 2 or mask.shape[0] not in (1, size[0]) or mask.shape[1] != size[1]:
        raise ValueError(
            f"a mask of shape {list(mask.shape)} was given for {size[0]} sequences of {size[1]} tokens; give one of "
            f"{list(size)}"
        )
    return mask.expand(size)


def scan(
    family: Family,
    signals: Signals,
    carry: Carry | None = None,
    *,
    capture: Positions | None = None,
    edits: Sequence[Edit] = (),
    readers: Tensor | None = None,
    mask: Tensor | None = None,
    backend: str = "auto",
) -> ScanResult:
    """Run the recurrence of `family` over `signals`, starting from `carry` (the family's initial carry if None).

    `capture`: positions whose carry is wanted (ints, negatives allowed; a slice; "all"). A capture at an edited
    position shows the edited carry, because that is what crosses to the next token.
    `edits`: honoured exactly, in the order given. `readers`: constant vectors in the query slot (see the family); like
    the read, a reader's answer at an edited position is from before the edit.
    `mask` [batch, time]: where False, the token is padding and the carry passes unchanged.
    Gradients flow through all of it. Raises ValueError for an unknown backend, an edit or a mask that does not fit, and
    IndexError for a position outside the sequence.
    """
    time = family.time(signals)
    if time == 0:
        raise ValueError(f"a scan of the family {family.name!r} over no token; give signals of at least one")
    device = next(x.device for x in signals if x is not None)
    carry = family.init_carry(signals) if carry is None else carry
    name = choose_backend(family, backend, device, signals, carry, readers)
    run = family.backends[name]
    wanted = resolve_positions(capture, time)
    if mask is not None:
        signals = family.hold(signals, _fitting(mask, family.tokens(signals), device))
    every = edits_by_position(edits, time)
    inside = run.inside(every, signals, carry) if every and isinstance(run, EditingBackend) else ()
    cuts = [here for here in every if here.position not in {e.position for e in inside}]

    segments: list[Segment] = []
    start = 0
    unique = sorted(set(wanted))
    for stop, here in [*((c.position + 1, c.edits) for c in cuts), (time, ())]:
        if stop > start:
            local = [p - start for p in unique if start <= p < stop]
            piece = family.slice(signals, start, stop)
            taken = [e._replace(position=e.position - start) for e in inside if start <= e.position < stop]
            if taken and isinstance(run, EditingBackend):
                segment = run.with_edits(piece, carry, local, readers, taken)
            else:
                segment = run(piece, carry, local, readers)
            segments.append(_with_edits(segment, here, ends_captured=bool(local) and local[-1] == stop - start - 1))
            carry = segments[-1].carry
        start = stop
    whole = _joined(segments)
    return ScanResult(whole.read, whole.carry, _in_order(whole.captured, unique, wanted), whole.readers, name)


def _with_edits(segment: Segment, edits: Sequence[Edit], *, ends_captured: bool) -> Segment:
    if not edits:
        return segment
    carry = segment.carry
    for edit in edits:
        carry = apply_edit(edit, carry)
    captured = segment.captured
    if ends_captured and captured is not None:
        captured = type(captured)(
            *(torch.cat([old[:, :-1], new.unsqueeze(1)], 1) for old, new in zip(captured, carry, strict=True))
        )
    return segment._replace(carry=carry, captured=captured)


def _joined(segments: Sequence[Segment]) -> Segment:
    """Segments that follow one another, as one."""
    if len(segments) == 1:
        return segments[0]
    captured = [s.captured for s in segments if s.captured is not None]
    readers = [s.readers for s in segments if s.readers is not None]
    return Segment(
        read=torch.cat([s.read for s in segments], 1),
        carry=segments[-1].carry,
        captured=type(captured[0])(*(torch.cat(parts, 1) for parts in zip(*captured, strict=True)))
        if captured
        else None,
        readers=torch.cat(readers, 1) if readers else None,
    )


def _in_order(captured: Carry, have: list[int], wanted: list[int]) -> Carry:
    if captured is None or have == wanted:
        return captured
    order = torch.tensor([have.index(p) for p in wanted], device=captured[0].device)
    return type(captured)(*(x.index_select(1, order) for x in captured))
