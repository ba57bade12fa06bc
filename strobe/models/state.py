"""`ModelState`: everything a model needs to go on from where it stopped; it can be read, changed, spliced and saved."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass
class ModelState:
    """What crosses from the last token seen to the next one.

    `carries`: by the name of the module that holds it (``"blocks.3.mixer"``), a NamedTuple of tensors [batch, ...].
    `seen`: how many tokens (padding included) went in. `weights_hash`: the model it came from.
    """

    carries: dict[str, Any]
    seen: int = 0
    weights_hash: str = ""
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def layers(self) -> "_Layers":
        """``state.layers[3].carry`` reads, and ``state.layers[3].carry = new`` replaces, the carry of a layer."""
        return _Layers(self)

    def splice(self, other: "ModelState", layers: Iterable[int]) -> "ModelState":
        """A new state: `other`'s carries in `layers`, this one's elsewhere. Raises ValueError where they do not fit."""
        carries = dict(self.carries)
        for layer in layers:
            names = [n for n in self.carries if n.startswith(f"blocks.{layer}.")]
            if not names:
                raise ValueError(f"splice asks for layer {layer}; this state has {', '.join(self.carries)}")
            for name in names:
                _check_same_kind(name, self.carries[name], other.carries.get(name))
                carries[name] = other.carries[name]
        return replace(self, carries=carries)

    def clone(self) -> "ModelState":
        """A copy that shares no memory with this one and carries no gradient."""
        return replace(
            self,
            carries={n: type(c)(*(x.detach().clone() for x in c)) for n, c in self.carries.items()},
            info=dict(self.info),
        )

    def row(self, index: int) -> "ModelState":
        """The state of one row of the batch, as a batch of one."""
        return replace(self, carries={n: type(c)(*(x[index : index + 1] for x in c)) for n, c in self.carries.items()})

    def save(self, path: str | Path) -> None:
        """Write one safetensors file (temporary file, then rename)."""
        from safetensors.torch import save_file

        from strobe.core.atomic import replacing

        tensors = {
            f"{n}/{f}": x.detach().contiguous()
            for n, c in self.carries.items()
            for f, x in zip(c._fields, c, strict=True)
        }
        header = {
            "format": "strobe-state",
            "version": 1,
            "seen": self.seen,
            "weights_hash": self.weights_hash,
            "info": self.info,
        }
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata={"strobe": json.dumps(header)})

    @classmethod
    def load(cls, path: str | Path, model: Any) -> "ModelState":
        """Read what `save` wrote, for `model`. Raises ValueError for another model's state or another kind of file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("strobe", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file ({error}); save the state again") from error
        if header.get("format") != "strobe-state":
            raise ValueError(f"{path} is not a saved state: its format is {header.get('format')!r}, not 'strobe-state'")
        if header["weights_hash"] != model.weights_hash():
            raise ValueError(
                f"{path} is a state of a model with weights {header['weights_hash'][:12]}, but this model's are "
                f"{model.weights_hash()[:12]}; load it with the model it came from"
            )
        device = next(model.parameters()).device
        carries = {}
        for name in dict.fromkeys(key.split("/")[0] for key in tensors):
            kind = model.carriers[name].Carry
            carries[name] = kind(*(tensors[f"{name}/{f}"].to(device) for f in kind._fields))
        return cls(carries=carries, seen=header["seen"], weights_hash=header["weights_hash"], info=header["info"])


class _Layers:
    def __init__(self, state: ModelState) -> None:
        self._state = state

    def __getitem__(self, layer: int) -> "_Layer":
        name = f"blocks.{layer}.mixer"
        if name not in self._state.carries:
            raise IndexError(f"layer {layer} has no carry in this state; there are {', '.join(self._state.carries)}")
        return _Layer(self._state, name)

    def __iter__(self) -> Iterator["_Layer"]:
        return (_Layer(self._state, n) for n in self._state.carries if n.endswith(".mixer"))


class _Layer:
    def __init__(self, state: ModelState, name: str) -> None:
        self._state, self.name = state, name

    @property
    def carry(self) -> Any:
        """The carry of this layer's mixer: a NamedTuple of tensors [batch, ...]."""
        return self._state.carries[self.name]

    @carry.setter
    def carry(self, new: Any) -> None:
        _check_same_kind(self.name, self._state.carries[self.name], new)
        self._state.carries[self.name] = new


def _check_same_kind(name: str, old: Any, new: Any) -> None:
    if type(new) is not type(old):
        raise ValueError(f"{name} holds a {type(old).__name__}; a {type(new).__name__} was given")
    grows = getattr(old, "grows", ())
    for field_name, a, b in zip(old._fields, old, new, strict=True):
        ignored = 1 if field_name in grows else None
        fits = isinstance(b, Tensor) and a.ndim == b.ndim
        if not fits or any(m != n for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if i != ignored):
            raise ValueError(
                f"{name}.{field_name} has shape {tuple(a.shape)}; {tuple(torch.as_tensor(b).shape)} was given"
            )
