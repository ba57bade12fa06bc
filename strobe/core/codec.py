"""Plain Python values as strict JSON and back, unchanged: what a result file's header is written with.

JSON has no tuples, no NaN, no dictionaries with integer keys and no arrays of numbers with a type; a result has all of
them. Each is written as an object with one reserved key. Arrays are set aside for the file's tensors and referred to by
name.
"""

import json
import math
from typing import Any

import numpy as np

# The reserved keys. A dictionary of the caller's that has one of them is written in the "pairs" form.
_TUPLE, _FLOAT, _PAIRS, _ARRAY, _RECORD = "$tuple", "$float", "$pairs", "$array", "$record"
_RESERVED = frozenset({_TUPLE, _FLOAT, _PAIRS, _ARRAY, _RECORD})


class Record:
    """A named object inside a value: its kind and its fields, for the caller to build (a nested result)."""

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind = kind
        self.fields = fields


def encode(value: Any, where: str, arrays: dict[str, np.ndarray] | None = None, record: Any = None) -> Any:
    """`value` as what `json` can write; arrays in it are put into `arrays` under their path, which starts with `where`.

    None, bool, int, float (NaN and infinities too), str, list, tuple, dict and numpy arrays of numbers, booleans or
    strings, nested as they come. `record(value)` may return a `Record` for an object it knows, or None. Raises
    TypeError for anything else, naming the path: a torch tensor, an object array, a subclass that would come back as
    its base.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {_FLOAT: repr(value)}
    if isinstance(value, np.ndarray | np.generic):
        return {_ARRAY: _set_aside(value, where, arrays)}
    if type(value) in (list, tuple):
        items = [encode(item, f"{where}.{i}", arrays, record) for i, item in enumerate(value)]
        return items if type(value) is list else {_TUPLE: items}
    if type(value) is dict:
        return _encode_dict(value, where, arrays, record)
    known = record(value) if record is not None else None
    if known is None:
        raise TypeError(
            f"{where} holds a {type(value).__module__}.{type(value).__qualname__}, which a result file cannot keep; "
            "give numpy arrays (tensor.detach().cpu().numpy()), numbers, strings, None, or lists, tuples and "
            "dictionaries of these"
        )
    return {_RECORD: known.kind, "fields": _encode_dict(known.fields, where, arrays, record)}


def decode(value: Any, arrays: dict[str, np.ndarray] | None = None, build: Any = None) -> Any:
    """What `encode` was given; `build(kind, fields)` makes the object of a `Record`. Raises ValueError if damaged."""
    if isinstance(value, list):
        return [decode(item, arrays, build) for item in value]
    if not isinstance(value, dict):
        return value
    if _TUPLE in value:
        return tuple(decode(item, arrays, build) for item in value[_TUPLE])
    if _FLOAT in value:
        return float(value[_FLOAT])
    if _PAIRS in value:
        return {decode(k, arrays, build): decode(v, arrays, build) for k, v in value[_PAIRS]}
    if _ARRAY in value:
        return _bring_back(value[_ARRAY], arrays or {})
    if _RECORD in value:
        if build is None:
            raise ValueError(f"a {value[_RECORD]} where plain values were expected")
        return build(value[_RECORD], decode(value["fields"], arrays, build))
    return {k: decode(v, arrays, build) for k, v in value.items()}


def dumps(value: Any) -> str:
    """Encoded values as strict JSON, keys in their order, one line."""
    return json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))


def _encode_dict(value: dict[Any, Any], where: str, arrays: dict[str, np.ndarray] | None, record: Any) -> Any:
    if all(type(key) is str for key in value) and not _RESERVED & value.keys():
        return {key: encode(item, f"{where}.{key}", arrays, record) for key, item in value.items()}
    return {
        _PAIRS: [
            [encode(key, f"{where} (key {key!r})", None, None), encode(item, f"{where}.{key}", arrays, record)]
            for key, item in value.items()
        ]
    }


def _set_aside(value: np.ndarray | np.generic, where: str, arrays: dict[str, np.ndarray] | None) -> dict[str, Any]:
    array = np.asarray(value)
    form: dict[str, Any] = {"scalar": True} if isinstance(value, np.generic) else {}
    if array.dtype.kind == "U":
        return form | {"strings": array.ravel().tolist(), "shape": list(array.shape)}
    if (
        arrays is None
        or array.dtype.kind not in "biufc"
        or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8)
    ):
        raise TypeError(
            f"{where} holds a numpy {'scalar' if form else 'array'} of dtype {array.dtype}, which cannot be kept here; "
            "give arrays of booleans, integers, floats up to float64, complex numbers or strings; in settings, plain "
            "numbers"
        )
    name = where
    while name in arrays:
        name += "'"
    if array.dtype.kind == "c":
        # safetensors has no complex128: real and imaginary parts become a last axis of two.
        form["complex"] = array.dtype.name
        array = array.copy(order="C")[..., None].view(f"f{array.dtype.itemsize // 2}")
    arrays[name] = np.asarray(array, order="C")
    return form | {"name": name}


def _bring_back(form: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    if "strings" in form:
        array = np.array(form["strings"], dtype=np.str_).reshape(form["shape"])
    elif form["name"] not in arrays:
        raise ValueError(f"the array {form['name']!r} is not in the file")
    else:
        array = arrays[form["name"]]
    if "complex" in form:
        array = np.asarray(array, order="C").view(form["complex"]).reshape(array.shape[:-1])
    return array[()] if form.get("scalar") else array
