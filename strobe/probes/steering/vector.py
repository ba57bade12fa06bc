"""`SteeringVector`: a direction at each of some hook points of one model, with everything needed to use it again.

A vector of the carry has a direction for each field of the carry of each layer, under the name of that field's
captured state (``blocks.3.mixer.hook_state_S``); every other vector has one direction for each hook point.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from strobe.core import hook_names

Operation = Literal["add", "project_out", "replace"]
CARRY = "carry"
_FORMAT, _VERSION = "strobe-steering-vector", 1


@dataclass(frozen=True, kw_only=True, eq=False)
class SteeringVector:
    """Directions in the spaces of one model's hook points.

    `directions`: by full hook name; [d] for an activation [batch, time, d], the field's own shape for a carry. float32
    or wider, unbatched. `point`: "resid_post", "mixer_out", "carry", ...: one point, at one or more layers.
    `operation`: what is done with it by default (`strobe.probes.steering.apply`). `method`, `norm`, `selector`: how it
    was made. `weights_hash`: of the model it belongs to. `info`: what else is known (pairs, labels, source).

    Raises ValueError if it is empty, a direction is not finite or not at `point`, or the operation does not exist.
    """

    directions: dict[str, Tensor]
    point: str
    model: str
    weights_hash: str
    operation: Operation = "add"
    method: str = "given"
    norm: str = "raw"
    selector: str = "last"
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.operation not in get_args(Operation):
            raise ValueError(f"operation {self.operation!r} does not exist; there are {', '.join(get_args(Operation))}")
        if not self.directions:
            raise ValueError("a steering vector needs a direction at one hook point at least; none was given")
        for name, direction in self.directions.items():
            if point_of(name) != self.point:
                raise ValueError(f"a vector of {self.point!r} was given a direction at {name!r}; make one for each")
            if not bool(torch.isfinite(direction).all()):
                raise ValueError(f"the direction at {name!r} is not finite; look at the activations it was made of")

    @property
    def layers(self) -> list[int]:
        """The layers it has directions for, ascending."""
        return sorted({layer_of(name) for name in self.directions})

    @property
    def norms(self) -> dict[str, float]:
        """Euclidean norm of each direction."""
        return {n: float(torch.linalg.vector_norm(d.double())) for n, d in self.directions.items()}

    def only(self, layers: Iterable[int]) -> "SteeringVector":
        """The directions of `layers`. Raises ValueError for a layer without one."""
        wanted = list(layers)
        if missing := sorted(set(wanted) - set(self.layers)):
            raise ValueError(f"layers {missing} were asked for; this vector has {', '.join(map(str, self.layers))}")
        return replace(self, directions={n: d for n, d in self.directions.items() if layer_of(n) in wanted})

    def random(self, seed: int = 0) -> "SteeringVector":
        """The control: Gaussian directions, each with the norm of the one it stands for."""
        generator = torch.Generator().manual_seed(seed)
        drawn = {}
        for name, direction in self.directions.items():
            noise = torch.randn(direction.shape, generator=generator, dtype=torch.float64)
            size = torch.linalg.vector_norm(direction.double()) / torch.linalg.vector_norm(noise)
            drawn[name] = (noise * size).to(direction)
        return replace(self, directions=drawn, method=f"random direction with the norm of {self.method}, seed {seed}")

    def check(self, model: Any, point: str | None = None) -> None:
        """Raises ValueError, with the reason, if this is not a vector of `model`, or not one of `point`."""
        if point is not None and point != self.point:
            raise ValueError(
                f"a vector of {point!r} was asked for; this one is of {self.point!r}: the two are different spaces. "
                f"Fit one at {point!r}"
            )
        if self.weights_hash != model.weights_hash():
            raise ValueError(
                f"the vector belongs to {self.model} with weights {self.weights_hash[:12]}; this is "
                f"{model.model_name} with weights {model.weights_hash()[:12]}. Use the model it was fitted on, or fit "
                "it again"
            )
        for name, direction in self.directions.items():
            if name not in model.hook_dict:
                raise ValueError(f"the vector has a direction at {name!r}, which {model.model_name} does not have")
            _check_shape(model, name, direction)

    def save(self, path: str | Path) -> Path:
        """Write ``path`` (safetensors) and ``path`` with the suffix .json beside it, which says what it is in words.

        The same text is in the safetensors header, which is what `load` reads. Returns the path.
        """
        from safetensors.torch import save_file

        from strobe.core.atomic import replacing, write_text

        path = Path(path)
        if path.suffix == ".json":
            raise ValueError(f"asked to save the tensors as {path}; give a name ending in .safetensors")
        text = json.dumps(self.header(), indent=2)
        with replacing(path) as temporary:
            tensors = {n: d.detach().cpu().contiguous() for n, d in self.directions.items()}
            save_file(tensors, temporary, metadata={"strobe": text})
        write_text(path.with_suffix(".json"), text + "\n")
        return path

    def header(self) -> dict[str, Any]:
        """Everything but the numbers, as plain values: operation, hook point, layer map, norms, selector, hash."""
        layers: dict[str, list[str]] = {}
        for name in self.directions:
            layers.setdefault(str(layer_of(name)), []).append(name)
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "operation": self.operation,
            "point": self.point,
            "layers": layers,
            "norm": self.norm,
            "norms": self.norms,
            "method": self.method,
            "selector": self.selector,
            "model": self.model,
            "weights_hash": self.weights_hash,
            "info": self.info,
        }

    @classmethod
    def load(cls, path: str | Path, model: Any = None, *, point: str | None = None) -> "SteeringVector":
        """Read what `save` wrote; with `model` (and `point`) it is checked against them.

        Raises ValueError for another kind of file, a newer version, another model's vector or another point's.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("strobe", "{}"))
                directions = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file ({error}); save the vector again") from error
        if header.get("format") != _FORMAT or header.get("version") != _VERSION:
            raise ValueError(
                f"{path} is {header.get('format')!r} version {header.get('version')!r}; this reads {_FORMAT!r} version "
                f"{_VERSION}"
            )
        kept = {k: header[k] for k in ("operation", "point", "norm", "method", "selector", "model", "weights_hash")}
        order = [name for names in header["layers"].values() for name in names]
        vector = cls(directions={n: directions[n] for n in order}, info=header["info"], **kept)
        if model is not None:
            vector.check(model, point)
        elif point is not None and point != vector.point:
            raise ValueError(f"a vector of {point!r} was asked for; {path} is of {vector.point!r}")
        return vector


def is_carry(name: str) -> bool:
    """Whether `name` is that of a field of a carry."""
    return hook_names.parse(name).point.startswith("state_")


def carry_field(name: str) -> str:
    """The field of the carry that `name` is about."""
    return hook_names.parse(name).point.removeprefix("state_")


def point_of(name: str) -> str:
    """The short form that `strobe.core.hook_names.hook_name` turns into `name`; "carry" for a field of a carry."""
    return CARRY if is_carry(name) else hook_names.parse(name).point


def layer_of(name: str) -> int:
    """The layer of `name`. Raises ValueError if it has none."""
    layer = hook_names.parse(name).layer
    if layer is None:
        raise ValueError(f"{name!r} belongs to no layer; steer at a point of a layer, such as 'resid_post'")
    return layer


def site_names(model: Any, point: str, layers: Iterable[int] | None = None) -> list[str]:
    """The hook names of `point` in `layers` (None: all that have it), one for each field where `point` is "carry".

    Raises ValueError for a layer, or a model, without that point.
    """
    every = range(model.cfg.n_layers) if layers is None else sorted(set(layers))
    found: list[str] = []
    for layer in every:
        if point == CARRY:
            mixer = model.mixers.get(f"blocks.{layer}.mixer")
            names = [] if mixer is None else [hook_names.mixer_state(layer, f) for f in mixer.Carry._fields]
        else:
            name = hook_names.hook_name(point, layer)
            names = [name] if name in model.hook_dict else []
        if not names and layers is not None:
            raise ValueError(f"{point!r} was asked for at layer {layer}, where {model.model_name} has none")
        found += names
    if not found:
        raise ValueError(f"{model.model_name} has {point!r} at no layer; 'resid_post' is at every layer of any model")
    return found


def _check_shape(model: Any, name: str, direction: Tensor) -> None:
    if is_carry(name):
        mixer = model.mixers[f"blocks.{layer_of(name)}.mixer"]
        carry = mixer.init_carry(1, torch.float32, torch.device("meta"))
        expected = tuple(getattr(carry, carry_field(name)).shape[1:])
    elif point_of(name).startswith(("resid", "mixer", "attn", "mlp")):
        expected = (model.cfg.d_model,)
    else:
        return
    if tuple(direction.shape) != expected:
        raise ValueError(
            f"the direction at {name!r} has shape {tuple(direction.shape)}; the model has {expected} there"
        )
