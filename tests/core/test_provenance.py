"""Oracle: the packages' own `__version__`, the clock, and the object before it was written."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import strobe
from strobe.core.provenance import Provenance, versions


def example(**changes: Any) -> Provenance:
    values = {
        "model": "tiny",
        "weights_hash": "ab12",
        "revision": "main",
        "seed": 3,
        "settings": {"positions": (0, 5), "rate": float("inf"), "by_layer": {0: "a"}},
        "backend": {"mamba2": "chunked"},
        "control": "random direction of equal norm",
    }
    return Provenance(**(values | changes))


def test_json_there_and_back_is_the_same():
    written = example()
    read = Provenance.from_json(written.to_json())
    assert read == written
    assert read.settings["positions"] == (0, 5)


def test_the_json_is_strict():
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(example().to_json(), parse_constant=refuse)


def test_versions_are_the_packages_own():
    import torch
    import transformers

    found = versions()
    assert found["strobe"] == strobe.__version__
    # The metadata of the CUDA wheel, 2.13.0, leaves out the build that torch itself names, +cu130.
    assert found["torch"] in (torch.__version__, torch.__version__.partition("+")[0])
    assert found["transformers"] == transformers.__version__
    assert found["numpy"] == np.__version__
    assert found["transformer-lens"]


def test_created_is_now_in_utc():
    made = datetime.fromisoformat(example().created)
    assert made.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("weights_hash", "cd34"),
        ("revision", "dev"),
        ("seed", 4),
        ("settings", {}),
        ("backend", {"mamba2": "reference"}),
    ],
)
def test_the_key_changes_with_what_decides_the_numbers(field: str, value: Any):
    assert example(**{field: value}).key() != example().key()


def test_the_key_does_not_change_with_time_or_control():
    assert example(created="earlier", control=None, versions={}).key() == example(created="later").key()


def test_settings_that_cannot_be_written_are_refused_when_made():
    with pytest.raises(TypeError, match=r"provenance\.settings\.device"):
        example(settings={"device": object()})
    with pytest.raises(TypeError, match=r"provenance\.settings\.w.*numpy array"):
        example(settings={"w": np.zeros(3)})


def test_what_is_not_a_provenance_is_refused():
    with pytest.raises(ValueError, match="no field 'model'"):
        Provenance.from_json("{}")
    with pytest.raises(ValueError, match="fields colour"):
        Provenance.from_json('{"model": "m", "colour": "red"}')


def test_an_old_files_versions_are_not_todays():
    assert Provenance.from_json('{"model": "m"}').versions == {}


def test_the_summary_says_what_is_known_and_whether_there_is_a_control():
    text = example().summary()
    assert "model: tiny, revision main" in text
    assert "seed: 3" in text
    assert "mamba2: chunked" in text
    assert "control: random direction of equal norm" in text
    assert "control: none" in example(control=None).summary()
    assert "seed" not in example(seed=None).summary()
