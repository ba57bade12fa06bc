"""The base of every recurrent mixer: project, scan, finish, and everything that looking and editing needs, once.

    project   everything that does not depend on the carry, parallel over tokens; each quantity is a hook point
    scan      the recurrence: the contract of `strobe.kernels.scan`
    finish    norm, gate, output projection

A mixer file says what its paper says and nothing else; this file turns that into captures, edits, callbacks by
cutting, and continuation.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from strobe.kernels import Edit, Family, scan
from strobe.kernels.edits import apply_edit
from strobe.models.run import Run
from strobe.models.window_edits import can_be_added, shifted_tokens, window_shifts
from strobe.models.windows import windows_at

Streams = dict[str, Tensor]
"""What each window slides over, whatever the window holds: field name -> [batch, time, channels]."""


class Mixer(nn.Module):
    """A recurrent token mixer, [batch, time, d_model] to [batch, time, d_model].

    A subclass sets the class attributes and writes `project`, `inputs` and `finish`.

    `Signals`: NamedTuple of what `project` computes, one field per quantity in the equations, [batch, time, ...]; each
    is the hook point ``hook_{field}``. `Carry`: NamedTuple of everything that crosses a token boundary: first the
    fields of the family's carry (the type `Memory`), then the windows. `memory`: the field that ``hook_state`` shows.

    Hook points of every mixer, beside those of its signals:

    ``hook_read``           [batch, time, ...]      what the scan returned; editable
    ``hook_carry``          the whole Carry, at each looked position; editable, and the edit propagates
    ``hook_state``          [batch, n_positions, ...] captured memory; read-only
    ``hook_state_{field}``  the same for each field of the carry; read-only
    ``hook_gate_{name}``    [batch, time, ...] for nonlinear cells, worked out after the fast pass; read-only

    The carry at position t crosses from token t to t+1: it is taken after t was written.
    """

    family: ClassVar[Family]
    Signals: ClassVar[Any]
    Carry: ClassVar[Any]
    Memory: ClassVar[Any]
    memory: ClassVar[str]
    gates: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.run: Run | None = None
        self.key = ""
        self._carry_bytes: dict[torch.dtype, int] = {}
        for field in self.signal_hooks():
            setattr(self, f"hook_{field}", HookPoint())
        self.hook_read = HookPoint()
        self.hook_carry = CarryHookPoint()
        self.hook_state = HookPoint()
        for field in self.Carry._fields:
            setattr(self, f"hook_state_{field}", HookPoint())
        for gate in self.gates:
            setattr(self, f"hook_gate_{gate}", HookPoint())

    @classmethod
    def signal_hooks(cls) -> tuple[str, ...]:
        """The fields of `Signals` that are hook points."""
        return cls.Signals._fields

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> Any:
        """The carry before the first token."""
        raise NotImplementedError

    def carry_bytes(self, dtype: torch.dtype) -> int:
        """What the carry of one row takes."""
        if dtype not in self._carry_bytes:
            carry = self.init_carry(1, dtype, torch.device("meta"))
            self._carry_bytes[dtype] = sum(x.numel() * x.element_size() for x in carry)
        return self._carry_bytes[dtype]

    def project(self, x: Float[Tensor, "batch time d_model"], carry: Any, mask: Tensor | None) -> tuple[Any, Streams]:
        """Signals of every token, and the streams that the carry's windows slide over."""
        raise NotImplementedError

    def inputs(self, signals: Any) -> Any:
        """The scan family's signals, made of this mixer's."""
        raise NotImplementedError

    def finish(self, read: Tensor, signals: Any) -> Float[Tensor, "batch time d_model"]:
        """The mixer's output."""
        raise NotImplementedError

    def trace(self, inputs: Any, carry: Any, read: Tensor) -> Any:
        """For a mixer with `gates`: a NamedTuple with each of them at every token, from what one scan returned."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time d_model"]:
        """Run over `x`, honouring what `self.run` asks for."""
        run = self.run or Run()
        carry = run.carries.get(self.key)
        if carry is None:
            carry = self.init_carry(x.shape[0], x.dtype, x.device)
        out = self._run_scan(x, carry, run)
        run.keep(self.key, out.carry)
        if out.captured is not None:
            self._show_states(out.captured)
        if out.traced is not None:
            self._show(
                {f"hook_gate_{g}": getattr(out.traced, g) for g in self.gates}, "a gate is worked out afterwards"
            )
        return self.finish(self.hook_read(out.read), out.signals)

    def step(self, signals_t: Any, carry: Any) -> tuple[Any, Tensor]:
        """One token of the recurrence, the definition: signals without the time axis in; (memory, read) out."""
        return self.family.step(self.inputs(signals_t), self.memory_of(carry))

    def transition(self, signals: Any) -> Any:
        """What each token does to the carry, where the mixer is linear in it (`strobe.kernels.linear.Transition`)."""
        if self.family.transition is None:
            raise TypeError(f"{type(self).__name__} is not linear in its carry, so it has no transition")
        return self.family.transition(self.inputs(signals))

    def memory_of(self, carry: Any) -> Any:
        """The part of `carry` that the scan family owns."""
        return self.Memory(*(getattr(carry, field) for field in self.Memory._fields))

    def _windows(self) -> tuple[str, ...]:
        return tuple(f for f in self.Carry._fields if f not in self.Memory._fields)

    def _fire(self, raw: Any, *, again: bool) -> Any:
        """The signals as the hooks leave them. `again`: they may be fired once more with another tail, so a hook that
        writes in place must not change `raw`."""
        hooked = {}
        for field in self.signal_hooks():
            point, x = getattr(self, f"hook_{field}"), getattr(raw, field)
            hooked[field] = point(x.clone() if again and point.has_hooks() else x)
        return raw._replace(**hooked)

    def wants_capture(self, run: Run) -> bool:
        """Whether someone hooked a captured state and `run` says at which positions."""
        points = (self.hook_state, *(getattr(self, f"hook_state_{f}") for f in self.Carry._fields))
        return bool(run.looks) and any(p.has_hooks() for p in points)

    def _run_scan(self, x: Tensor, carry: Any, run: Run) -> "_Out":
        """The scan, cut where a callback looks, where a window is edited (unless it is only added to), and at any edit
        if gates are traced."""
        time = x.shape[1]
        edits = [self._resolve(e, time) for e in run.edits.get(self.key, ())]
        looks = set(run.looks) if self.hook_carry.has_hooks() else set()
        capture = sorted(set(run.looks)) if self.wants_capture(run) else []
        tracing = any(getattr(self, f"hook_gate_{g}").has_hooks() for g in self.gates)
        at_once = not (looks or tracing) and run.mask is None and can_be_added(edits, self._windows())
        cuts = looks | {e.position for e in edits if tracing or (e.field in self._windows() and not at_once)}
        again = bool(cuts and self._windows())
        raw, streams = self.project(x, carry, run.mask)
        shifts: dict[str, Tensor] = {}
        if at_once:
            shifts = window_shifts(edits, carry, self._windows(), time)
            seen = shifted_tokens(edits, carry, self._windows(), time)
            raw = self._project_each(x, carry, raw, streams, shifts, seen)
            edits = [e for e in edits if e.field not in self._windows()]
        signals = self._fire(raw, again=again)
        inputs = self.inputs(signals)

        reads, captured, traced = [], [], []
        start = 0
        for stop in sorted({c + 1 for c in cuts} | {time}):
            part = _Part(start, stop, capture, edits, run, shifts)
            read, after, shown = self._segment(inputs, streams, carry, part)
            if tracing:
                traced.append(self._traced(inputs, carry, read, part))
            if stop - 1 in looks:
                after, shown = self._look(after, shown, stop - 1, run.offset, captured_here=stop - 1 in capture)
            reads.append(read)
            if shown is not None:
                captured.append(shown)
            if stop < time and self._windows_changed(streams, carry, after, part):
                raw, streams = self._reproject(x, after, raw, streams, stop, run.mask)
                signals = self._fire(raw, again=again)
                inputs = self.inputs(signals)
            carry, start = after, stop
        return _Out(
            read=reads[0] if len(reads) == 1 else torch.cat(reads, 1),
            signals=signals,
            carry=carry,
            captured=_ordered(captured, capture, list(run.looks)) if capture else None,
            traced=_ordered(traced, [], []) if tracing else None,
        )

    def _segment(self, inputs: Any, streams: Streams, carry: Any, part: "_Part") -> tuple[Tensor, Any, Any]:
        """Tokens [start, stop) from `carry`: (read, carry after, captured carry or None)."""
        windows = self._windows()
        inner = [_moved(e, -part.start) for e in part.edits if e.field not in windows]
        result = scan(
            self.family,
            self.family.slice(inputs, part.start, part.stop),
            self.memory_of(carry),
            capture=part.local or None,
            edits=inner,
            mask=part.mask,
            backend=part.run.backend,
        )
        part.run.ran[self.key] = result.backend
        end = part.stop - part.start - 1
        at = {w: self._window_at(streams, carry, w, [*part.local, end], part) for w in windows}
        after = self.Carry(*result.carry, *(at[w][:, -1] for w in windows))
        shown = None
        if result.captured is not None:
            shown = self.Carry(*result.captured, *(at[w][:, :-1] for w in windows))
        for edit in (e for e in part.edits if e.field in windows):
            after = apply_edit(edit, after)
            if shown is not None and part.local[-1] == end:
                shown = _replace_last(shown, after)
        return result.read, after, shown

    def _traced(self, inputs: Any, carry: Any, read: Tensor, part: "_Part") -> Any:
        here = self.family.slice(inputs, part.start, part.stop)
        if part.mask is not None:
            here = self.family.hold(here, part.mask)
        return self.trace(here, self.memory_of(carry), read)

    def _window_at(self, streams: Streams, carry: Any, window: str, positions: Sequence[int], part: "_Part") -> Tensor:
        stream = streams[window][:, part.start : part.stop]
        found = windows_at(stream, getattr(carry, window), list(positions), part.mask)
        return found + part.shifts[window][:, list(positions)].to(found) if part.shifts else found

    def _windows_changed(self, streams: Streams, before: Any, after: Any, part: "_Part") -> bool:
        """Whether an edit or a callback left a window other than the one the stream gives."""
        end = [part.stop - part.start - 1]
        return any(
            not torch.equal(self._window_at(streams, before, w, end, part)[:, 0], getattr(after, w))
            for w in self._windows()
        )

    def _reproject(
        self, x: Tensor, carry: Any, raw: Any, streams: Streams, stop: int, mask: Tensor | None
    ) -> tuple[Any, Streams]:
        """Signals and streams with the tokens from `stop` on projected again, from the windows in `carry`."""
        tail, tail_streams = self.project(x[:, stop:], carry, None if mask is None else mask[:, stop:])
        joined = type(raw)(
            *(
                old if old is None or f not in self.signal_hooks() else torch.cat([old[:, :stop], new], 1)
                for f, old, new in zip(raw._fields, raw, tail, strict=True)
            )
        )
        return joined, {w: torch.cat([streams[w][:, :stop], tail_streams[w]], 1) for w in streams}

    def _project_each(
        self, x: Tensor, carry: Any, raw: Any, streams: Streams, shifts: dict[str, Tensor], tokens: list[int]
    ) -> Any:
        """`raw` with each of `tokens`, of which none is the first, projected as a row of its own from the window before
        it, moved by its shift."""
        if not tokens:
            return raw
        before = [t - 1 for t in tokens]
        rows = self.init_carry(x.shape[0] * len(tokens), x.dtype, x.device)
        for w, shift in shifts.items():
            moved = windows_at(streams[w], getattr(carry, w), before) + shift[:, before]
            rows = rows._replace(**{w: moved.flatten(0, 1)})
        each, _ = self.project(x[:, tokens].flatten(0, 1)[:, None], rows, None)
        index = torch.tensor(tokens, device=x.device)
        return type(raw)(
            *(
                old
                if old is None or f not in self.signal_hooks()
                else old.index_copy(1, index, new.unflatten(0, (-1, len(tokens)))[:, :, 0].to(old))
                for f, old, new in zip(raw._fields, raw, each, strict=True)
            )
        )

    def _look(self, carry: Any, shown: Any, position: int, offset: int, *, captured_here: bool) -> tuple[Any, Any]:
        self.hook_carry.position = position + offset
        # A copy: a hook may write into it, and the carry can be a view of what the scan returned for this token.
        new = self.hook_carry(type(carry)(*(x.clone() for x in carry)))
        if not isinstance(new, self.Carry):
            raise TypeError(
                f"a hook on {self.hook_carry.name!r} returned {type(new).__name__}; return the carry it was given "
                f"({self.Carry.__name__} with {', '.join(self.Carry._fields)}), changed with carry._replace(...)"
            )
        for name, old, now in zip(self.Carry._fields, carry, new, strict=True):
            if now.shape != old.shape:
                raise ValueError(
                    f"a hook on {self.hook_carry.name!r} returned {name} of shape {tuple(now.shape)} "
                    f"where {tuple(old.shape)} was given"
                )
        return new, (_replace_last(shown, new) if captured_here else shown)

    def _resolve(self, edit: Edit, time: int) -> Edit:
        if not -time <= edit.position < time:
            raise IndexError(f"edit of {self.key} at position {edit.position}: this run has {time} tokens")
        field = edit.field or self.memory
        if field not in self.Carry._fields:
            raise ValueError(f"edit of {self.key} names the field {field!r}; it has {', '.join(self.Carry._fields)}")
        return Edit(position=edit.position % time, kind=edit.kind, value=edit.value, field=field, heads=edit.heads)

    def _show_states(self, captured: Any) -> None:
        shown = {f"hook_state_{f}": getattr(captured, f) for f in self.Carry._fields}
        shown["hook_state"] = getattr(captured, self.memory)
        self._show(shown, "a captured state is a copy")

    def _show(self, shown: dict[str, Tensor], why: str) -> None:
        for name, tensor in shown.items():
            point = getattr(self, name)
            # Not `is`: a backward hook wraps what passes, and shares its memory.
            if point.has_hooks() and point(tensor).data_ptr() != tensor.data_ptr():
                raise RuntimeError(
                    f"a hook on {point.name!r} returned a tensor, but {why}: editing it would change nothing. "
                    f"Edit 'hook_carry' at the same positions instead"
                )


class CarryHookPoint(HookPoint):
    """The live carry; `position` is the token it was taken after, counted from where the state started."""

    position: int | None = None


class _Out(NamedTuple):
    """What one pass over all tokens gave."""

    read: Tensor
    signals: Any
    carry: Any
    captured: Any
    traced: Any


class _Part:
    """Tokens [start, stop) of one run: the positions, edits and mask that fall into it, counted from `start`. `shifts`:
    what its windows hold more, in a run of one part."""

    def __init__(
        self,
        start: int,
        stop: int,
        capture: Sequence[int],
        edits: Sequence[Edit],
        run: Run,
        shifts: dict[str, Tensor],
    ) -> None:
        self.start, self.stop, self.run, self.shifts = start, stop, run, shifts
        self.local = [p - start for p in capture if start <= p < stop]
        self.edits = [e for e in edits if start <= e.position < stop]
        self.mask = None if run.mask is None else run.mask[:, start:stop]


def _moved(edit: Edit, by: int) -> Edit:
    return Edit(position=edit.position + by, kind=edit.kind, value=edit.value, field=edit.field, heads=edit.heads)


def _replace_last(captured: Any, carry: Any) -> Any:
    return type(captured)(*(torch.cat([c[:, :-1], x.unsqueeze(1)], 1) for c, x in zip(captured, carry, strict=True)))


def _ordered(parts: list[Any], have: list[int], wanted: list[int]) -> Any:
    fields = list(parts[0]) if len(parts) == 1 else [torch.cat(column, 1) for column in zip(*parts, strict=True)]
    if have != wanted:
        order = torch.tensor([have.index(p) for p in wanted], device=fields[0].device)
        fields = [x.index_select(1, order) for x in fields]
    return type(parts[0])(*fields)
