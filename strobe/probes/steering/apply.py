"""Steering a model: a vector added to, projected out of or put in place of what a layer computes or carries.

Which tokens are steered is said in absolute positions, so that it means the same while decoding token by token. The
carry at position t crosses from token t to t+1: steering it there changes what later tokens see, and propagates.

``add``          x + m v, as published
``project_out``  x - m (x.u) u with u = v / |v|: m = 1 takes the component out, m = 0 leaves it
``replace``      x - (x.u) u + m v: the component along v becomes m v, whatever it was

What is added to a carry is handed to the scan as data (`strobe.kernels.Edit`), which costs less than a callback at each
token; the other operations look at the carry and are callbacks.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from strobe.core import hook_names
from strobe.models.generation import generate_stream
from strobe.models.hooked import StateEdit
from strobe.probes.steering.vector import CARRY, Operation, SteeringVector, carry_field, is_carry, layer_of

WhereKind = Literal["all", "prompt", "generated", "from", "at", "mask"]


@dataclass(frozen=True)
class Where:
    """Which tokens are steered.

    "all"; "prompt"; "generated" (tokens drawn while decoding, when they are run in their turn); "from" `start` on; "at"
    `positions`; "mask": where `mask` is True, False beyond its end. Positions count from the first token of the text;
    negative ones from the end of the prompt, so ``Where("from", start=-1)`` is the last prompt token and all that
    follows, as in Paulo et al.
    """

    kind: WhereKind = "all"
    start: int | None = None
    positions: tuple[int, ...] = ()
    mask: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in get_args(WhereKind):
            raise ValueError(f"where {self.kind!r} does not exist; there are {', '.join(get_args(WhereKind))}")
        needs = {"from": self.start is not None, "at": bool(self.positions), "mask": bool(self.mask)}
        if not needs.get(self.kind, True):
            name = {"from": "start", "at": "positions", "mask": "mask"}[self.kind]
            raise ValueError(f"where {self.kind!r} needs `{name}`, and none was given")

    def selects(self, position: int, prompt_end: int) -> bool:
        """Whether the token at absolute `position` is steered, in a text whose prompt ends before `prompt_end`."""
        if self.kind == "from":
            assert self.start is not None
            return position >= _absolute(self.start, prompt_end)
        if self.kind == "at":
            return position in {_absolute(p, prompt_end) for p in self.positions}
        if self.kind == "mask":
            return position < len(self.mask) and self.mask[position]
        return self.kind == "all" or (position < prompt_end) == (self.kind == "prompt")

    def check_padding(self, side: Literal["left", "right"]) -> None:
        """Raises ValueError if padding on that `side` would move the positions this is about."""
        given = (*self.positions, *(() if self.start is None else (self.start,)))
        from_start = self.kind == "mask" or any(p >= 0 for p in given)
        from_end = any(p < 0 for p in given)
        if from_start if side == "left" else from_end:
            raise ValueError(
                f"where {self} counts positions, and texts of different length are padded on the {side} here, which "
                "moves them; give one text at a time, or texts of one length"
            )


class Steering:
    """A vector (or several, say of residual stream and carry) at work on a model; the model itself is not changed.

    >>> steering = Steering(model, vector, multiplier=1.5, where=Where("generated"))    # doctest: +SKIP
    >>> steering.generate("def area(", 40, seed=0)                                      # doctest: +SKIP

    `layers`: one, several or None for all that the vector has. `operation`: None for the vector's own. With `add` or
    `project_out`, multiplier 0 installs nothing, so every number is the unsteered model's to the bit.
    Raises ValueError for a vector of another model or hook point (with the reason) or a multiplier that is not finite.
    """

    def __init__(
        self,
        model: Any,
        vectors: SteeringVector | Sequence[SteeringVector],
        multiplier: float = 1.0,
        *,
        layers: int | Iterable[int] | None = None,
        where: Where | WhereKind = "all",
        operation: Operation | None = None,
    ) -> None:
        if not math.isfinite(multiplier):
            raise ValueError(f"multiplier {multiplier} was given; it has to be a finite number")
        given = [vectors] if isinstance(vectors, SteeringVector) else list(vectors)
        wanted = None if layers is None else [layers] if isinstance(layers, int) else list(layers)
        for vector in given:
            vector.check(model)
            if (operation or vector.operation) not in get_args(Operation):
                raise ValueError(f"operation {operation!r} does not exist; there are {', '.join(get_args(Operation))}")
        self.model, self.multiplier = model, float(multiplier)
        self.vectors = given if wanted is None else [v.only(wanted) for v in given]
        self.where = where if isinstance(where, Where) else Where(where)
        self.operation: Operation | None = operation

    def forward(self, inputs: Any, **kwargs: Any) -> Any:
        """As calling the model, steered. All of `inputs` is prompt. Raises ValueError where no token is selected."""
        tokens, mask = self.model._inputs(inputs, kwargs.pop("mask", None))
        if mask is not None:
            self.where.check_padding("right")
        first = kwargs["state"].seen if kwargs.get("state") is not None else 0
        end = first + tokens.shape[1]
        looks = self._local(first, tokens.shape[1], end)
        if not looks:
            raise ValueError(
                f"steering was asked for at {self.where}, which is no token of positions {first} to {end - 1}"
            )
        hooks = [*kwargs.pop("fwd_hooks", ()), *self._hooks(end, added=False)]
        edits = [*kwargs.pop("edits", ()), *self._edits(looks)]
        if self._looks_at_carry():
            if kwargs.get("states") is not None:
                raise ValueError(
                    "states were asked for while a carry is steered, which looks at the steered positions itself; "
                    "capture with model.run_with_cache and the hooks of Steering.hooks"
                )
            kwargs["states"] = looks
        return self.model.run_with_hooks(tokens, mask=mask, fwd_hooks=hooks, edits=edits, **kwargs)

    def generate_stream(self, inputs: Any, max_new_tokens: int = 50, **kwargs: Any) -> Iterator[Tensor]:
        """New tokens [batch], one at a time, steered; see `strobe.models.generation.generate_stream`."""
        chosen = self._generation(inputs, max_new_tokens, kwargs)
        yield from generate_stream(self.model, inputs, max_new_tokens, **chosen)

    def generate(self, inputs: Any, max_new_tokens: int = 50, **kwargs: Any) -> Any:
        """Prompt and steered continuation; see `strobe.models.generation.generate`."""
        return self.model.generate(inputs, max_new_tokens, **self._generation(inputs, max_new_tokens, kwargs))

    def hooks(self, prompt_end: int) -> list[tuple[str, Callable[..., Any]]]:
        """Hooks for `run_with_hooks` or `generate`, of a text whose prompt ends before absolute `prompt_end`.

        Those of a carry act at the positions the run looks at (`states`) as far as `where` selects them.
        """
        return self._hooks(prompt_end, added=True)

    def _hooks(self, prompt_end: int, *, added: bool) -> list[tuple[str, Callable[..., Any]]]:
        """As `hooks`; with `added` False without those that `_edits` gives as data."""
        found: list[tuple[str, Callable[..., Any]]] = []
        for vector in self.vectors:
            operation: Operation = self.operation or vector.operation
            if self.multiplier == 0 and operation != "replace":
                continue
            if vector.point == CARRY and operation == "add" and not added:
                continue
            by_layer: dict[int, dict[str, Tensor]] = {}
            for name, direction in vector.directions.items():
                if is_carry(name):
                    by_layer.setdefault(layer_of(name), {})[carry_field(name)] = direction
                else:
                    found.append((name, self._activation_hook(direction, operation, prompt_end)))
            for layer, fields in by_layer.items():
                found.append((hook_names.mixer_carry(layer), self._carry_hook(fields, operation, prompt_end)))
        return found

    def _edits(self, positions: Sequence[int]) -> list[StateEdit]:
        """What is added to carries, as edits after each of `positions`, which count the tokens of the run."""
        if self.multiplier == 0:
            return []
        return [
            StateEdit(
                layer=layer_of(name),
                position=position,
                kind="add",
                value=self.multiplier * direction,
                field=carry_field(name),
            )
            for vector in self.vectors
            if vector.point == CARRY and (self.operation or vector.operation) == "add"
            for name, direction in vector.directions.items()
            for position in positions
        ]

    def _activation_hook(self, direction: Tensor, operation: Operation, prompt_end: int) -> Callable[..., Any]:
        def steer(x: Tensor, hook: Any) -> Tensor | None:
            local = self._local(self._offset(), x.shape[1], prompt_end)
            if not local:
                return None
            changed = x.clone()
            changed[:, local] = change(x[:, local], direction.to(x), self.multiplier, operation, direction.ndim)
            return changed

        return steer

    def _carry_hook(self, fields: dict[str, Tensor], operation: Operation, prompt_end: int) -> Callable[..., Any]:
        def steer(carry: Any, hook: Any) -> Any:
            if not self.where.selects(hook.position, prompt_end):
                return carry
            new = {}
            for field, direction in fields.items():
                old = getattr(carry, field)
                new[field] = change(old, direction.to(old), self.multiplier, operation, direction.ndim)
            return carry._replace(**new)

        return steer

    def _generation(self, inputs: Any, max_new_tokens: int, kwargs: dict[str, Any]) -> dict[str, Any]:
        tokens, mask = self.model._inputs(inputs, None)
        if mask is not None:
            self.where.check_padding("left")
        first = kwargs["state"].seen if kwargs.get("state") is not None else 0
        end = first + tokens.shape[1]
        looks = self._local(first, tokens.shape[1], end) if self._looks_at_carry() else []
        hooks = [*kwargs.pop("fwd_hooks", ()), *self._hooks(end, added=False)]
        # The last new token is drawn and not run.
        run = self._local(first, tokens.shape[1] + max_new_tokens - 1, end)
        edits = [*kwargs.pop("edits", ()), *self._edits(run)]
        return {"states": looks or [-1], **kwargs, "fwd_hooks": hooks, "edits": edits}

    def _local(self, first: int, time: int, prompt_end: int) -> list[int]:
        return [i for i in range(time) if self.where.selects(first + i, prompt_end)]

    def _looks_at_carry(self) -> bool:
        """Whether a carry is steered by a callback."""
        return any(v.point == CARRY and (self.operation or v.operation) != "add" for v in self.vectors)

    def _offset(self) -> int:
        # Every carrier of a pass is given the same run, attention's included.
        return next(iter(self.model.carriers.values())).run.offset


def change(x: Tensor, direction: Tensor, multiplier: float | Tensor, operation: Operation, rank: int) -> Tensor:
    """`operation` on x [..., *space]; `direction` and `multiplier` broadcast against x, and the last `rank` axes are
    those of the space the direction is in. A direction of zeros changes nothing but what `add` adds, which is nothing.
    """
    if operation == "add":
        return x + multiplier * direction
    axes = tuple(range(-rank, 0))
    size = torch.linalg.vector_norm(direction, dim=axes, keepdim=True)
    unit = direction / torch.where(size > 0, size, torch.ones_like(size))
    along = (x * unit).sum(axes, keepdim=True) * unit
    return x - multiplier * along if operation == "project_out" else x - along + multiplier * direction


def _absolute(position: int, prompt_end: int) -> int:
    return position + prompt_end if position < 0 else position
