"""Oracle: TransformerLens's get_act_name for the names that both have; taking a name apart and putting it together."""

import pytest
from transformer_lens.utilities import get_act_name

from strobe.core import hook_names
from strobe.core.hook_names import hook_name, parse


@pytest.mark.parametrize(
    "short",
    [
        ("embed",),
        ("pos_embed",),
        ("resid_pre", 0),
        ("resid_mid", 3),
        ("resid_post", 11),
        ("attn_out", 2),
        ("mlp_out", 2),
        ("pre", 4),
        ("post", 4),
        ("scale", 5, "ln1"),
        ("normalized", 5, "ln2"),
        ("normalized",),
        ("scale",),
        ("state", 1, "mixer"),
        ("q", 1, "attn"),
        ("blocks.3.hook_resid_post",),
        ("ln_final.hook_scale",),
    ],
)
def test_short_forms_mean_what_they_mean_in_transformer_lens(short: tuple):
    assert hook_name(*short) == get_act_name(*short)


def test_what_transformer_lens_has_not_is_in_the_mixer():
    assert hook_name("state", 3) == "blocks.3.mixer.hook_state"
    assert hook_name("decay", 3) == "blocks.3.mixer.hook_decay"
    assert hook_names.mixer_state(3) == "blocks.3.mixer.hook_state"
    assert hook_names.mixer_state(3, "conv") == "blocks.3.mixer.hook_state_conv"
    assert hook_names.mixer_carry(10) == "blocks.10.mixer.hook_carry"
    assert hook_names.mixer_read(0) == "blocks.0.mixer.hook_read"


@pytest.mark.parametrize("builder", ["resid_pre", "resid_mid", "resid_post", "mixer_out", "attn_out", "mlp_out"])
def test_builders_are_their_short_forms(builder: str):
    assert getattr(hook_names, builder)(7) == f"blocks.7.hook_{builder}"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hook_embed", (None, None, "embed")),
        ("ln_final.hook_normalized", (None, "ln_final", "normalized")),
        ("blocks.12.hook_resid_pre", (12, None, "resid_pre")),
        ("blocks.0.mixer.hook_state_conv", (0, "mixer", "state_conv")),
        ("blocks.3.mixer.norm.hook_scale", (3, "mixer.norm", "scale")),
    ],
)
def test_a_name_apart_and_together_is_the_same(name: str, parts: tuple):
    assert parse(name) == parts
    assert str(parse(name)) == name


@pytest.mark.parametrize("name", ["", "state", "blocks.3", "blocks.3.mixer.state", "blocks.3.mixer.hook_", "hook_a b"])
def test_what_is_no_name_is_refused(name: str):
    with pytest.raises(ValueError, match="not a full hook name"):
        parse(name)


def test_a_missing_or_negative_layer_is_refused():
    with pytest.raises(ValueError, match="needs a layer"):
        hook_name("state")
    with pytest.raises(ValueError, match="count from 0"):
        hook_name("state", -1)
