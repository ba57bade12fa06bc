"""Oracle: the configuration itself, through JSON and back; messages that name what is wrong."""

import json

import pytest

from strobe.models.config import ModelConfig

SIZES = {"d_model": 8, "d_vocab": 11, "layers": ["gru", "attention"], "d_mlp": 16}
OPTIONS = {"gru": {"hidden": 8}, "attention": {"n_heads": 2}}


def test_json_and_back():
    config = ModelConfig(**SIZES, mixer_options=OPTIONS, seed=3, tie_embeddings=False)
    raw = json.loads(config.to_json())
    assert raw["format"] == "strobe-model" and raw["version"] == 1
    assert ModelConfig.from_dict(raw) == config
    assert config.layers == ("gru", "attention")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": []}, "at least one layer"),
        ({"layers": ["grus"]}, "no mixer 'grus'; there are .*gru"),
        (
            {"mixer_options": {"lstm": {"hidden": 4}}},
            r"mixer_options names \['lstm'\], but the layers are \['attention', 'gru'\]",
        ),
        ({"mlp": "wide"}, "'wide'; it can be 'gated', 'plain' or 'none'"),
        ({"d_mlp": 0}, "needs a width: d_mlp is 0"),
        ({"d_input": 3}, "set tie_embeddings=False"),
    ],
)
def test_what_cannot_be_built_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{**SIZES, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "not a strobe model's"),
        ({"version": 2}, "version 2; this strobe reads version 1"),
        ({"d_modle": 8}, r"unknown keys \['d_modle'\]; the known ones are .*'d_model'"),
        ({"d_vocab": None}, r"lacks \['d_vocab'\]"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(change, message):
    raw = {**json.loads(ModelConfig(**SIZES).to_json()), **change}
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_dict({k: v for k, v in raw.items() if v is not None})


def test_a_label_is_not_part_of_the_mixer_s_name():
    config = ModelConfig(
        **{**SIZES, "layers": ["attention:wide", "attention"]}, mixer_options={"attention:wide": {"n_heads": 2}}
    )
    assert ModelConfig.from_dict(json.loads(config.to_json())) == config
