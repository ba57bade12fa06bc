"""Oracle: the files that were written, opened again, beside the same question asked of the library."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from strobe import cli
from strobe.probes.steering import (
    Selector,
    SteeredText,
    SteeringSweep,
    SteeringVector,
    Where,
    contrast_vector,
    load_caa,
    steered_text,
)

TEXT = "def area(r):\n    return r * 2"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    from strobe.models import HookedLM, ModelConfig, save_checkpoint
    from strobe.models.corpus import load_tokenizer, train_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny"
    file = folder.parent / "tokenizer.json"
    train_tokenizer([TEXT] * 3, 262).save(str(file))
    options = {"mamba2": {"heads": 2, "head_dim": 4, "state": 3}, "attention": {"n_heads": 2}}
    config = ModelConfig(d_model=8, d_vocab=262, layers=["mamba2", "attention"], mixer_options=options, mlp="none")
    save_checkpoint(HookedLM(config, tokenizer=load_tokenizer(file), name="tiny"), folder)
    return folder


@pytest.fixture
def caa(tmp_path) -> Path:
    file = tmp_path / "candour.json"
    records = [
        {"question": f"Is {i} odd?", "answer_matching_behavior": "(A)" if i % 2 else "(B)",
         "answer_not_matching_behavior": "(B)" if i % 2 else "(A)"}
        for i in range(8)
    ]  # fmt: skip
    file.write_text(json.dumps(records))
    return file


def strobe(*arguments: object) -> int:
    return cli.main([str(a) for a in arguments])


def test_a_text_is_continued_as_the_library_does_and_the_vector_is_kept(tiny, caa, tmp_path, capsys):
    from strobe.models import load_checkpoint
    from strobe.probes.steering import Where, contrast_vector, load_caa, steered_text

    out, kept = tmp_path / "play.csv", tmp_path / "v.safetensors"
    options = ("--caa", caa, "--point", "carry", "--multiplier", 2.5, "--new-tokens", 5, "--seed", 4)
    assert strobe("steer", tiny, *options, "--text", TEXT, "--save-vector", kept, "--out", out) == 0
    model = load_checkpoint(tiny)
    vector = contrast_vector(model, load_caa(caa).pairs[:4], point="carry")
    saved = SteeringVector.load(kept, model, point="carry")
    assert all(torch.equal(saved.directions[n], d) for n, d in vector.directions.items())
    assert saved.info["contrast"] == "candour"
    expected = steered_text(model, TEXT, vector, 2.5, where=Where("from", start=-2), max_new_tokens=5, seed=4)
    result = SteeredText.load(tmp_path / "play.safetensors")
    assert result.continuations == expected.continuations
    np.testing.assert_array_equal(result.surprise, expected.surprise)
    said = capsys.readouterr().out
    assert f"wrote {kept}" in said and "random 2" in said


@pytest.mark.parametrize(
    ("options", "where"), [(("--where", "prompt"), Where("prompt")), (("--from", 2), Where("from", start=2))]
)
def test_which_tokens_are_read_and_steered_can_be_said(tiny, caa, tmp_path, options, where):
    from strobe.models import load_checkpoint

    asked = ("--caa", caa, "--span", -2, "--multiplier", 40, "--new-tokens", 5, "--text", TEXT, *options)
    assert strobe("steer", tiny, *asked, "--out", tmp_path / "play.csv") == 0
    model, found = load_checkpoint(tiny), SteeredText.load(tmp_path / "play.safetensors")
    vector = contrast_vector(model, load_caa(caa).pairs[:4], selector=Selector("span", -2))
    expected = steered_text(model, TEXT, vector, 40.0, where=where, max_new_tokens=5)
    assert found.continuations == expected.continuations
    np.testing.assert_allclose(found.surprise, expected.surprise, atol=1e-5)
    assert found.provenance.settings["where"] == str(where)
    assert found.provenance.settings["vectors"][0]["selector"] == "span -2:None"


def test_a_kept_vector_of_either_format_is_used_again(tiny, caa, tmp_path):
    files = [tmp_path / "v.gguf", tmp_path / "v.safetensors"]
    for file in files:
        options = ("--caa", caa, "--text", TEXT, "--new-tokens", 3, "--multiplier", 3, "--layers", 1)
        assert strobe("steer", tiny, *options, "--save-vector", file, "--out", tmp_path / "a.safetensors") == 0
    first = SteeredText.load(tmp_path / "a.safetensors")
    for file in files:
        options = ("--vector", file, "--text", TEXT, "--new-tokens", 3, "--multiplier", 3)
        assert strobe("steer", tiny, *options, "--out", tmp_path / "b.safetensors") == 0
        again = SteeredText.load(tmp_path / "b.safetensors")
        assert again.continuations == first.continuations and again.steering == first.steering


def test_a_sweep_judges_by_records_it_was_not_fitted_on(tiny, caa, tmp_path):
    from strobe.models import load_checkpoint
    from strobe.probes.steering import contrast_vector, load_caa, steering_sweep

    out = tmp_path / "sweep.json"
    options = ("--sweep", "--caa", caa, "--point", "resid_post", "carry", "--multipliers", -1, 0, 2, "--random", 1)
    assert strobe("steer", tiny, *options, "--out", out) == 0
    result = SteeringSweep.load(tmp_path / "sweep.safetensors")
    model, whole = load_checkpoint(tiny), load_caa(caa)
    vectors = {
        name: contrast_vector(model, whole.pairs[:4], point=point)
        for name, point in (("residual", "resid_post"), ("state", "carry"))
    }
    expected = steering_sweep(model, vectors, whole.questions[4:], multipliers=(-1, 0, 2), n_random=1)
    assert result.vectors == ("residual", "state") and result.base_behaviour.size == 4
    np.testing.assert_array_equal(result.behaviour, expected.behaviour)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--text", TEXT), "no vector was given"),
        (("--set", "naming"), "neither a text nor --sweep"),
        (("--set", "naming", "--text", TEXT, "--sweep"), "both a text and --sweep"),
        (("--vector", "v.gguf", "--sweep"), "a sweep asks questions"),
        (("--vector", "v.gguf", "--text", TEXT, "--caa-test", "x.json"), "without --caa"),
        (("--set", "naming", "--text", TEXT, "--save-vector", "v.txt"), "can be .safetensors or .gguf"),
        (
            ("--set", "naming", "--text", TEXT, "--point", "carry", "mixer_out", "--save-vector", "v.gguf"),
            "--point names 2",
        ),
        (("--set", "naming", "--text", TEXT, "--where", "prompt", "--from", 3), "both say which tokens"),
        (("--set", "naming", "--text", TEXT, "--span", 1, 2, 3), "found 3 numbers"),
        (("--set", "naming", "--sweep", "--where", "prompt"), "a sweep steers the last token"),
        (("--set", "naming", "--pairs", 100000, "--text", TEXT), "100000 pairs of 'naming' were asked for"),
    ],
)
def test_bad_input_is_refused_in_words(tiny, tmp_path, capsys, options, said):
    assert strobe("steer", tiny, *options, "--out", tmp_path / "r.json") != 0
    assert said in capsys.readouterr().err


def test_a_vector_of_another_model_is_refused(tiny, caa, tmp_path, capsys):
    from dataclasses import replace

    from strobe.models import load_checkpoint
    from strobe.probes.steering import contrast_vector, load_caa

    vector = contrast_vector(load_checkpoint(tiny), load_caa(caa).pairs)
    file = replace(vector, weights_hash="0" * 64).save(tmp_path / "v.safetensors")
    assert strobe("steer", tiny, "--vector", file, "--text", TEXT, "--out", tmp_path / "r.json") != 0
    assert "belongs to tiny with weights 000000000000" in capsys.readouterr().err
