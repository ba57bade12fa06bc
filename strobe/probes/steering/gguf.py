"""Reads and writes control vectors as repeng and llama.cpp keep them: a GGUF file with one ``direction.{i}`` a layer.

The layout is GGUF version 3 (ggml's ``docs/gguf.md``): magic, version, counts, key-value pairs, tensor descriptions,
then the tensors at multiples of the alignment. ``direction.{i}`` is added to the output of block i, counted from 0:
our ``resid_post``. Keys: ``general.architecture`` = "controlvector", ``controlvector.model_hint``,
``controlvector.layer_count``. llama.cpp ignores a direction of layer 0. Ours, in keys of our own that others ignore:
the hash of the weights and how the vector was made.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strobe.core import hook_names
from strobe.core.atomic import write_bytes
from strobe.probes.steering.vector import SteeringVector, layer_of

_ALIGNMENT = 32
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
# ggml's tensor types that are plain numbers.
_DTYPES = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
_OWN = "strobe.steering_vector"


def write_gguf(vector: SteeringVector, path: str | Path, *, model_hint: str | None = None) -> Path:
    """Write `vector` as a control vector; `model_hint` is what repeng calls model_type (None: the model's name).

    Raises ValueError for a vector of another point than "resid_post" or another operation than "add": the format has
    no place for either.
    """
    if vector.point != "resid_post" or vector.operation != "add":
        raise ValueError(
            f"a GGUF control vector is added to the output of a block; this vector is to {vector.operation} at "
            f"{vector.point!r}. Save it with SteeringVector.save"
        )
    own = {k: v for k, v in vector.header().items() if k not in ("layers", "norms")}
    pairs = [
        ("general.architecture", _STRING, "controlvector"),
        ("controlvector.model_hint", _STRING, model_hint or vector.model),
        ("controlvector.layer_count", _UINT32, len(vector.directions)),
        (_OWN, _STRING, json.dumps(own)),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(vector.directions), len(pairs))
    for key, kind, value in pairs:
        head += _string(key) + struct.pack("<I", kind)
        head += _string(str(value)) if kind == _STRING else struct.pack("<I", value)
    body = b""
    for name, direction in vector.directions.items():
        data = direction.detach().cpu().float().numpy().astype("<f4").tobytes()
        head += _string(f"direction.{layer_of(name)}")
        head += struct.pack("<IQIQ", 1, direction.numel(), 0, len(body))
        body += data + b"\0" * (-len(data) % _ALIGNMENT)
    write_bytes(path, head + b"\0" * (-len(head) % _ALIGNMENT) + body)
    return Path(path)


def read_gguf(path: str | Path, model: Any, *, model_hint: str | None = None) -> SteeringVector:
    """The control vector at `path`, for `model`, as a vector of "resid_post".

    A file of repeng's says only what type of model it is for: with `model_hint` it has to be that. One of ours says
    which weights. Raises ValueError if either does not fit, a layer or width is not the model's, or the file is no
    control vector of plain floats.
    """
    data = Path(path).read_bytes()
    try:
        keys, tensors = _parse(data, path)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise ValueError(f"{path} is not a whole GGUF file ({error}); write it again") from error
    if keys.get("general.architecture") != "controlvector":
        raise ValueError(f"{path} is a GGUF file of {keys.get('general.architecture')!r}, not of a control vector")
    hint = keys.get("controlvector.model_hint")
    if model_hint is not None and hint != model_hint:
        raise ValueError(f"{path} is a control vector of {hint!r}; {model_hint!r} was asked for")
    directions = {}
    for name, array in tensors.items():
        prefix, _, layer = name.partition(".")
        if prefix == "direction" and layer.isdigit():
            directions[hook_names.resid_post(int(layer))] = torch.from_numpy(array.copy())
    if not directions:
        raise ValueError(f"{path} has no tensor called direction.N; it has {', '.join(tensors) or 'none'}")
    own = json.loads(keys.get(_OWN, "{}"))
    vector = SteeringVector(
        directions=directions,
        point="resid_post",
        model=own.get("model", hint or "unknown"),
        weights_hash=own.get("weights_hash", model.weights_hash()),
        method=own.get("method", "read from a GGUF control vector"),
        norm=own.get("norm", "as in the file"),
        selector=own.get("selector", "unknown"),
        info={**own.get("info", {}), "model_hint": hint, "source": Path(path).name},
    )
    vector.check(model)
    return vector


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


class _Reader:
    """Takes values off a buffer, from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, pattern: str) -> Any:
        (value,) = struct.unpack_from(pattern, self.data, self.at)
        self.at += struct.calcsize(pattern)
        return value

    def string(self) -> str:
        size = self.take("<Q")
        if self.at + size > len(self.data):
            raise IndexError(f"a text of {size} bytes goes beyond the end")
        self.at += size
        return self.data[self.at - size : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, count = self.take("<I"), self.take("<Q")
            return [self.value(inner) for _ in range(count)]
        if kind not in _SCALARS:
            raise IndexError(f"a value of the unknown type {kind}")
        return self.take(_SCALARS[kind])


def _parse(data: bytes, path: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if data[:4] != b"GGUF":
        raise ValueError(f"{path} is not a GGUF file: it begins with {data[:4]!r}")
    reader = _Reader(data)
    reader.at = 4
    version, n_tensors, n_keys = reader.take("<I"), reader.take("<Q"), reader.take("<Q")
    if version not in (2, 3):
        raise ValueError(f"{path} is GGUF version {version}; versions 2 and 3 are read (little-endian)")
    keys = {}
    for _ in range(n_keys):
        key = reader.string()
        keys[key] = reader.value(reader.take("<I"))
    described = []
    for _ in range(n_tensors):
        name, n_dims = reader.string(), reader.take("<I")
        dims = [reader.take("<Q") for _ in range(n_dims)]
        described.append((name, dims, reader.take("<I"), reader.take("<Q")))
    alignment = keys.get("general.alignment", _ALIGNMENT)
    start = reader.at + -reader.at % alignment
    return keys, {name: _tensor(data, start + offset, dims, kind, name) for name, dims, kind, offset in described}


def _tensor(data: bytes, at: int, dims: list[int], kind: int, name: str) -> np.ndarray:
    if kind not in _DTYPES:
        raise ValueError(f"tensor {name!r} has ggml's type {kind}; float32 (0) and float16 (1) are read")
    count = int(np.prod(dims))
    if at + count * _DTYPES[kind].itemsize > len(data):
        raise IndexError(f"tensor {name!r} goes beyond the end")
    # ggml lists the fastest axis first.
    return np.frombuffer(data, _DTYPES[kind], count, at).astype(np.float32).reshape(dims[::-1])
