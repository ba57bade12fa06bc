"""Oracle: files made by another implementation (GGUF of ggml's own `gguf` 0.19, by repeng's calls), and round trips.

A vector of another model, hook point or shape is refused with the reason.
"""

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from strobe.models import HookedLM, ModelConfig
from strobe.probes.steering.gguf import read_gguf, write_gguf
from strobe.probes.steering.vector import SteeringVector

# gguf.GGUFWriter(path, "controlvector"); model_hint "mamba2"; layer_count 2; direction.1 and then direction.0, each
# arange(8) / 4 - layer in float32.
REPENG = (
    "R0dVRgMAAAACAAAAAAAAAAMAAAAAAAAAFAAAAAAAAABnZW5lcmFsLmFyY2hpdGVjdHVyZQgAAAANAAAAAAAAAGNvbnRyb2x2ZWN0b3IYAAAA"
    "AAAAAGNvbnRyb2x2ZWN0b3IubW9kZWxfaGludAgAAAAGAAAAAAAAAG1hbWJhMhkAAAAAAAAAY29udHJvbHZlY3Rvci5sYXllcl9jb3VudAQA"
    "AAACAAAACwAAAAAAAABkaXJlY3Rpb24uMQEAAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAsAAAAAAAAAZGlyZWN0aW9uLjABAAAACAAAAAAAAAAA"
    "AAAAIAAAAAAAAAAAAAAAgL8AAEC/AAAAvwAAgL4AAAAAAACAPgAAAD8AAEA/AAAAAAAAgD4AAAA/AABAPwAAgD8AAKA/AADAPwAA4D8="
)


def build(seed: int = 0) -> HookedLM:
    options = {"mamba2": {"heads": 2, "head_dim": 4, "state": 5}}
    config = ModelConfig(
        d_model=8, d_vocab=31, layers=("mamba2", "mamba2"), mixer_options=options, mlp="none", seed=seed
    )
    return HookedLM(config, name="small").eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> HookedLM:
    return build()


def make(model: HookedLM, point: str) -> SteeringVector:
    shapes = {
        "resid_post": {f"blocks.{i}.hook_resid_post": (8,) for i in range(2)},
        "carry": {"blocks.1.mixer.hook_state_S": (2, 5, 4), "blocks.1.mixer.hook_state_conv": (3, 18)},
    }[point]
    directions = {name: torch.randn(shape) for name, shape in shapes.items()}
    return SteeringVector(
        directions=directions,
        point=point,
        model=model.model_name,
        weights_hash=model.weights_hash(),
        operation="project_out" if point == "carry" else "add",
        method="pca",
        norm="equal",
        selector="span 1:3",
        info={"n_pairs": 7},
    )


@pytest.mark.parametrize("point", ["resid_post", "carry"])
def test_a_saved_vector_comes_back_whole_and_says_in_words_what_it_is(model, tmp_path, point):
    vector = make(model, point)
    path = vector.save(tmp_path / "v.safetensors")
    again = SteeringVector.load(path, model, point=point)
    assert again.header() == vector.header()
    assert all(torch.equal(again.directions[n], d) for n, d in vector.directions.items())
    said = json.loads((tmp_path / "v.json").read_text())
    assert said["operation"] == vector.operation and said["point"] == point and said["selector"] == "span 1:3"
    assert said["norm"] == "equal" and said["weights_hash"] == model.weights_hash()
    assert sorted(said["layers"]) == [str(i) for i in vector.layers]


def test_another_model_point_shape_or_file_is_refused_with_the_reason(model, tmp_path):
    vector = make(model, "resid_post")
    path = vector.save(tmp_path / "v.safetensors")
    with pytest.raises(ValueError, match="belongs to small with weights"):
        SteeringVector.load(path, build(seed=1))
    with pytest.raises(ValueError, match="different spaces"):
        SteeringVector.load(path, model, point="mixer_out")
    short = replace(vector, directions={"blocks.0.hook_resid_post": torch.ones(7)})
    with pytest.raises(ValueError, match="has shape \\(7,\\)"):
        short.check(model)
    with pytest.raises(ValueError, match="make one for each"):
        replace(vector, directions={**vector.directions, "blocks.0.hook_mixer_out": torch.ones(8)})
    with pytest.raises(ValueError, match="not finite"):
        replace(vector, directions={"blocks.0.hook_resid_post": torch.full((8,), torch.nan)})
    (tmp_path / "w.safetensors").write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="not a whole safetensors"):
        SteeringVector.load(tmp_path / "w.safetensors")


def test_random_directions_have_the_norm_of_those_they_stand_for(model):
    vector = make(model, "carry")
    control = vector.random(5)
    for name, direction in vector.directions.items():
        drawn = control.directions[name]
        assert float(drawn.norm()) == pytest.approx(float(direction.norm()), rel=1e-5)
        assert abs(float((drawn * direction).sum() / direction.norm() ** 2)) < 0.6
    assert not torch.equal(
        vector.random(6).directions["blocks.1.mixer.hook_state_S"], control.directions["blocks.1.mixer.hook_state_S"]
    )


def test_a_control_vector_of_repengs_is_read(model, tmp_path):
    (tmp_path / "r.gguf").write_bytes(base64.b64decode(REPENG))
    vector = read_gguf(tmp_path / "r.gguf", model, model_hint="mamba2")
    assert vector.point == "resid_post" and vector.operation == "add" and vector.layers == [0, 1]
    for layer in range(2):
        direction = vector.directions[f"blocks.{layer}.hook_resid_post"]
        np.testing.assert_array_equal(direction, np.arange(8, dtype=np.float32) / 4 - layer)
    with pytest.raises(ValueError, match="'llama' was asked for"):
        read_gguf(tmp_path / "r.gguf", model, model_hint="llama")


def test_a_control_vector_is_written_as_gguf_writes_it_but_for_our_own_key(model, tmp_path):
    directions = {f"blocks.{i}.hook_resid_post": torch.arange(8) / 4 - i for i in (1, 0)}
    vector = replace(make(model, "resid_post"), directions=directions)
    ours = write_gguf(vector, tmp_path / "o.gguf", model_hint="mamba2").read_bytes()
    theirs = base64.b64decode(REPENG)
    assert ours[:16] == theirs[:16]
    end = theirs.index(b"direction.1") - 8
    assert ours[24 : 24 + end - 24] == theirs[24:end]
    described = len(b"direction.1") + 8 + 4 + 8 + 4 + 8
    start = ours.rindex(b"direction.1") - 8
    assert ours[start : start + 2 * described] == theirs[end : end + 2 * described]
    assert ours[-64:] == theirs[-64:] and len(ours) % 32 == len(theirs) % 32 == 0


def test_a_written_control_vector_comes_back_and_knows_its_model(model, tmp_path):
    vector = make(model, "resid_post")
    path = write_gguf(vector, tmp_path / "o.gguf")
    again = read_gguf(path, model)
    assert all(torch.equal(again.directions[n], d) for n, d in vector.directions.items())
    assert again.weights_hash == vector.weights_hash and again.method == "pca"
    with pytest.raises(ValueError, match="belongs to small with weights"):
        read_gguf(path, build(seed=1))
    with pytest.raises(ValueError, match="is added to the output of a block"):
        write_gguf(make(model, "carry"), tmp_path / "c.gguf")
    (tmp_path / "short.gguf").write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a whole GGUF"):
        read_gguf(tmp_path / "short.gguf", model)
