"""Oracle: Python's own JSON reader in its strict form, and the value before it was written."""

import json

import numpy as np
import pytest

from strobe.core import codec


def test_json_is_strict_and_comes_back():
    value = {"a": (float("nan"), [float("-inf")]), 3: None, "t": ("$tuple",)}
    text = codec.dumps(codec.encode(value, "v"))
    assert repr(codec.decode(json.loads(text))) == repr(value)
    assert "NaN" not in text
    assert "Infinity" not in text


def test_arrays_are_set_aside_under_the_path_where_they_were():
    arrays: dict[str, np.ndarray] = {}
    codec.encode({"layers": [np.zeros(2), {"h": np.ones(1)}]}, "states", arrays)
    assert list(arrays) == ["states.layers.0", "states.layers.1.h"]


def test_an_array_is_not_changed_by_being_encoded():
    array = np.array([1 + 2j, 3j])
    codec.encode(array, "a", {})
    assert array.dtype == np.complex128
    assert array.shape == (2,)


def test_a_subclass_that_would_come_back_as_its_base_is_refused():
    class Name(str):
        pass

    class Pair(tuple):
        pass

    for value in (Name("x"), Pair((1, 2))):
        with pytest.raises(TypeError, match="holds a"):
            codec.encode(value, "v")


def test_an_array_that_is_not_in_the_file_is_named():
    with pytest.raises(ValueError, match="'kl' is not in the file"):
        codec.decode({"$array": {"name": "kl"}}, {})


def test_records_are_built_by_the_caller():
    class Point:
        x = 2

    encoded = codec.encode([Point()], "v", {}, lambda value: codec.Record("Point", {"x": value.x}))
    assert codec.decode(encoded, {}, lambda kind, fields: (kind, fields)) == [("Point", {"x": 2})]
    with pytest.raises(ValueError, match="a Point where plain values"):
        codec.decode(encoded)
