"""Oracle: the object before it was saved; files cut short; classes and versions that a file was not made for."""

import json
import math
import struct
from dataclasses import FrozenInstanceError, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float, TypeCheckError, jaxtyped
from safetensors.numpy import save_file

from strobe.core import Provenance, Result, ResultFileError, load_result
from strobe.core import result as result_module

NAN, INF = float("nan"), float("inf")


# What the import hook does to classes of strobe.
@jaxtyped(typechecker=beartype)
@dataclass(frozen=True)
class Trajectory(Result):
    """A small result with one field of each kind."""

    kl: Float[np.ndarray, "layers time"]
    tokens: list[str]
    extra: dict[Any, Any] = field(default_factory=dict)
    control: "Result | None" = None

    def figure(self, **options: Any) -> Any:
        import plotly.graph_objects as go

        return go.Figure(go.Heatmap(z=self.kl), layout={"title": options.get("title", "KL")})

    def to_frame(self) -> Any:
        import pandas as pd

        return pd.DataFrame({"kl": self.kl.ravel()})


@dataclass(frozen=True)
class Spectrum(Result):
    """Another class, for files of the wrong one."""

    values: np.ndarray

    def figure(self, **options: Any) -> Any:
        raise NotImplementedError

    def to_frame(self) -> Any:
        raise NotImplementedError


def provenance(**changes: Any) -> Provenance:
    settings = {"model": "tiny", "weights_hash": "ab12", "seed": 7, "settings": {"layers": (1, 2), "beta": NAN}}
    return Provenance(**(settings | changes))


def trajectory(**changes: Any) -> Trajectory:
    values = {"kl": np.array([[0.5, NAN, -INF]]), "tokens": ["the", "\ud800", "a\u202eb"], "provenance": provenance()}
    return Trajectory(**(values | changes))


def rewrite_header(path: Path, **changes: Any) -> None:
    """Change what a saved result says of itself, in place (8 bytes of length, JSON, then the arrays)."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = {"strobe": json.dumps(json.loads(header["__metadata__"]["strobe"]) | changes)}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


VALUES = {
    "integers of every size": {"a": np.arange(3, dtype=np.int8), "b": np.array([2**63], dtype=np.uint64)},
    "an array without axes": {"a": np.array(1.5), "c": np.array(1 - 2j)},
    "empty arrays": {"a": np.zeros((0, 3)), "c": np.zeros((2, 0), complex), "s": np.zeros((0, 2), dtype=np.str_)},
    "complex numbers": {"c": np.array([[1 + 2j, NAN - INF * 1j]]), "small": np.array([1j], np.complex64)},
    "arrays in other orders": {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "step": np.arange(9)[::2]},
    "big-endian numbers": {"a": np.array([1.0, 2.0], dtype=">f8").astype("<f8")},
    "numpy scalars": {"a": np.float32(0.1), "b": np.int64(3), "c": np.bool_(True), "s": np.str_("x")},
    "texts in arrays": {"a": np.array([["the", "·"], ["", "cat sat"]])},
    "floats that JSON has not": {"a": [NAN, INF, -INF, -0.0, 5e-324], "b": 0.1 + 0.2},
    "tuples in lists": {"a": [(1, 2), ((), [])], "b": None, "c": True},
    "keys that are no texts": {1: "one", (0, "k"): np.arange(2), None: 3, 2.5: 4},
    "keys that look like ours": {"$tuple": [1], "x": {"$array": {"name": "y"}}},
    "names that collide": {"a": {"b": np.zeros(1)}, "a.b": np.ones(1)},
    "a large integer": {"a": 2**80},
}


@pytest.mark.parametrize("extra", VALUES.values(), ids=VALUES.keys())
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, extra: dict):
    result = trajectory(extra=extra)
    loaded = Trajectory.load(result.save(tmp_path / "r.safetensors"))
    assert loaded == result
    assert repr(loaded.extra) == repr(result.extra)
    assert loaded.provenance.to_json() == result.provenance.to_json()


def test_infinities_and_the_sign_of_zero_survive(tmp_path: Path):
    extra = {"zero": -0.0, "array": np.array([-0.0, NAN, INF])}
    loaded = Trajectory.load(trajectory(extra=extra).save(tmp_path / "r.safetensors"))
    assert math.copysign(1, loaded.extra["zero"]) == -1
    assert loaded.extra["array"].tobytes() == extra["array"].tobytes()


def test_a_control_is_saved_inside(tmp_path: Path):
    control = Spectrum(np.array([1.0, 2.0]), provenance=provenance(seed=8))
    result = trajectory(control=control, extra={"draws": [control, control]})
    loaded = Trajectory.load(result.save(tmp_path / "r.safetensors"))
    assert loaded == result
    assert isinstance(loaded.control, Spectrum)
    assert loaded.control.provenance.seed == 8


def test_saving_twice_writes_the_same_bytes(tmp_path: Path):
    result = trajectory(extra={str(i): np.full(i, i) for i in range(9)})
    first, second = (result.save(tmp_path / name).read_bytes() for name in ("a.safetensors", "b.safetensors"))
    assert first == second


def test_the_class_is_found_by_name(tmp_path: Path):
    path = trajectory().save(tmp_path / "r.safetensors")
    assert isinstance(load_result(path), Trajectory)


def test_another_classes_file_is_refused_by_name(tmp_path: Path):
    path = trajectory().save(tmp_path / "r.safetensors")
    with pytest.raises(ResultFileError, match=r"loading Spectrum from .*holds a Trajectory; use Trajectory\.load"):
        Spectrum.load(path)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path):
    data = trajectory().save(tmp_path / "r.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    for length in [0, 1, 7, 8, 9, len(data) // 2, len(data) - 25, len(data) - 1]:
        cut.write_bytes(data[:length])
        with pytest.raises(
            ResultFileError, match=f"its {length} bytes are not a whole safetensors file.*copy it again"
        ):
            Trajectory.load(cut)


def test_a_newer_file_is_refused(tmp_path: Path):
    path = trajectory().save(tmp_path / "r.safetensors")
    rewrite_header(path, format=2)
    with pytest.raises(ResultFileError, match="file format version 2, and this strobe reads up to 1"):
        load_result(path)
    rewrite_header(path, format=1, version=9)
    with pytest.raises(ResultFileError, match="Trajectory version 9, and this strobe reads up to 1"):
        Trajectory.load(path)


def test_a_missing_path_a_folder_and_foreign_weights_are_named(tmp_path: Path):
    with pytest.raises(ResultFileError, match="no such file"):
        load_result(tmp_path / "absent.safetensors")
    with pytest.raises(ResultFileError, match="this is a folder"):
        load_result(tmp_path)
    save_file({"w": np.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(ResultFileError, match="not a saved result"):
        load_result(tmp_path / "weights.safetensors")
    # Another program's entry of the same name, of any shape.
    for entry in ("[]", "3", '{"kind": ["result"]}'):
        save_file({"w": np.zeros(3)}, tmp_path / "other.safetensors", metadata={"strobe": entry})
        with pytest.raises(ResultFileError, match="not a saved result"):
            load_result(tmp_path / "other.safetensors")


def test_weights_are_not_read_to_say_that_they_are_no_result(tmp_path: Path):
    # numpy has no bfloat16: to read this tensor is an error of its own.
    header = b'{"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path = tmp_path / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ResultFileError, match="not a saved result"):
        load_result(path)


@pytest.mark.parametrize("name", ["format", "class", "module", "version", "fields"])
def test_a_header_without_what_every_result_says_is_damaged(tmp_path: Path, name: str):
    path = trajectory().save(tmp_path / "r.safetensors")
    for value in (None, []):
        rewrite_header(path, **{name: value})
        with pytest.raises(ResultFileError, match=rf"header is damaged \(no {name}\)"):
            load_result(path)


def test_unknown_classes_and_fields_are_named(tmp_path: Path):
    path = trajectory().save(tmp_path / "r.safetensors")
    rewrite_header(path, **{"class": "Mystery", "module": "elsewhere.mystery"})
    with pytest.raises(ResultFileError, match=r"holds a Mystery.*import elsewhere\.mystery first"):
        load_result(path)
    rewrite_header(path, **{"class": "Mystery", "module": "strobe.no_such_module"})
    with pytest.raises(ResultFileError, match="cannot be imported"):
        load_result(path)
    path = trajectory().save(tmp_path / "r.safetensors")
    rewrite_header(path, fields={"kl": 1, "surprise": 2})
    with pytest.raises(ResultFileError, match="no field surprise"):
        load_result(path)
    rewrite_header(path, fields={"extra": {}})
    with pytest.raises(ResultFileError, match="has no kl, provenance, tokens"):
        load_result(path)
    rewrite_header(path, fields={"extra": {"$array": {"name": "gone"}}})
    with pytest.raises(ResultFileError, match="header is damaged"):
        load_result(path)


def test_only_our_modules_are_imported_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "planted.py").write_text("raise SystemExit('a file chose what to run')")
    monkeypatch.syspath_prepend(tmp_path)
    path = trajectory().save(tmp_path / "r.safetensors")
    rewrite_header(path, **{"class": "Planted", "module": "planted"})
    with pytest.raises(ResultFileError, match="no imported module defines"):
        load_result(path)


def test_an_old_file_without_a_newer_optional_field_opens(tmp_path: Path):
    path = Spectrum(np.ones(2), provenance=provenance()).save(tmp_path / "r.safetensors")
    assert Spectrum.load(path).values.tolist() == [1, 1]


@pytest.mark.parametrize(
    "value",
    [{1, 2}, object(), np.array([object()]), np.array(["2026-01-01"], "M8[D]"), {"deep": [{}, {"x": b"bytes"}]}],
)
def test_what_a_file_cannot_keep_is_refused_at_once(value: Any):
    with pytest.raises(TypeError, match=r"Trajectory\.extra\.bad\S* holds a .*give"):
        trajectory(extra={"bad": value})


def test_a_tensor_is_refused_with_the_remedy():
    import torch

    with pytest.raises(TypeError, match=r"holds a torch\.Tensor.*tensor\.detach\(\)\.cpu\(\)\.numpy\(\)"):
        trajectory(extra={"w": torch.zeros(2)})


def test_a_result_is_frozen_equal_by_value_and_can_be_hashed():
    result = trajectory()
    with pytest.raises(FrozenInstanceError):
        result.tokens = []
    assert result == trajectory(provenance=result.provenance)
    assert hash(result) == hash(trajectory(provenance=result.provenance))
    assert result != trajectory(kl=np.array([[0.5, NAN, INF]]), provenance=result.provenance)
    assert result != trajectory(kl=np.array([[0.5, NAN, -INF]], np.float32), provenance=result.provenance)
    assert result != trajectory(provenance=provenance(seed=8))
    assert result != "a trajectory"


def test_an_unfinished_class_makes_no_object():
    @dataclass(frozen=True)
    class Unfinished(Result):
        pass

    try:
        with pytest.raises(TypeError, match="abstract"):
            Unfinished(provenance=provenance())
    finally:
        del result_module._CLASSES["Unfinished"]


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(TypeError, match="has the name of the result class"):
        type("Spectrum", (Result,), {"__module__": "elsewhere"})


def test_texts_for_people_hold_no_markup():
    shown = trajectory(tokens=["<script>alert(1)</script>"])._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert "kl: float64 [1, 3]" in trajectory().summary()
    assert "seed: 7" in trajectory().summary()
    assert "\n" not in repr(trajectory())


def test_export_carries_the_provenance(tmp_path: Path):
    result = trajectory(kl=np.ones((1, 3)))
    path = result.export(tmp_path / "figure.json", title="mine")
    layout = json.loads(path.read_text())["layout"]
    assert layout["title"]["text"] == "mine"
    assert layout["meta"]["strobe"]["result"] == "Trajectory"
    assert Provenance.from_json(layout["meta"]["strobe"]["provenance"]).weights_hash == "ab12"


def test_shapes_are_checked():
    with pytest.raises(TypeCheckError, match="kl"):
        trajectory(kl=np.zeros(3))
