"""Oracle: the run that was never stopped. A state kept, spliced, cut to a row or read back must continue it exactly."""

from collections import namedtuple

import pytest
import torch

from strobe.core.tolerances import assert_close, relative_error
from strobe.models.config import ModelConfig
from strobe.models.native import HookedLM
from strobe.models.state import ModelState

LAYERS = ["lstm", "attention", "mamba2", "rwkv4", "rglru"]
OPTIONS = {
    "lstm": {"hidden": 7},
    "attention": {"n_heads": 2},
    "mamba2": {"heads": 2, "head_dim": 3, "state": 4},
    "rwkv4": {"hidden": 6},
    "rglru": {"inner": 8, "heads": 2},
}


def build(seed=0):
    config = ModelConfig(d_model=8, d_vocab=11, layers=LAYERS, mixer_options=OPTIONS, d_mlp=10, seed=seed)
    return HookedLM(config).double()


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(11, (2, 15), generator=torch.Generator().manual_seed(1))


def same(a, b):
    assert list(a.carries) == list(b.carries)
    for name, carry in a.carries.items():
        for x, y in zip(carry, b.carries[name], strict=True):
            assert torch.equal(x, y), name


def test_save_and_load(model, tokens, tmp_path):
    state = model.state_after(tokens[:, :9])
    state.info["text"] = "a note"
    state.save(tmp_path / "state.safetensors")
    loaded = ModelState.load(tmp_path / "state.safetensors", model)
    same(state, ModelState({n: loaded.carries[n] for n in state.carries}))
    assert (loaded.seen, loaded.info, loaded.weights_hash) == (9, {"text": "a note"}, model.weights_hash())
    assert all(type(loaded.carries[n]) is type(c) for n, c in state.carries.items())
    assert_close(model(tokens[:, 9:], loaded), model(tokens)[:, 9:], kind="scan")


def test_the_first_state_can_be_saved_too(model, tokens, tmp_path):
    """Its key/value caches are empty."""
    model.init_state(2).save(tmp_path / "first.safetensors")
    loaded = ModelState.load(tmp_path / "first.safetensors", model)
    assert_close(model(tokens, loaded), model(tokens), kind="scan")


def test_another_model_s_state_is_refused(model, tokens, tmp_path):
    model.state_after(tokens).save(tmp_path / "state.safetensors")
    other = build(seed=1)
    with pytest.raises(
        ValueError, match=rf"weights {model.weights_hash()[:12]}, but this model's are {other.weights_hash()[:12]}"
    ):
        ModelState.load(tmp_path / "state.safetensors", other)


def test_the_weights_hash_follows_the_weights():
    a = build()
    before = a.weights_hash()
    with torch.no_grad():
        a.blocks[2].mixer.D[0] += 1e-9
    assert a.weights_hash() != before == build().weights_hash()


def test_files_that_are_not_states_are_refused(model, tokens, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "state.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="is not a saved state: its format is None"):
        ModelState.load(path, model)
    model.state_after(tokens).save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        ModelState.load(path, model)


def test_splice_takes_the_other_s_layers(model, tokens):
    """The oracle takes the other's carries by hand."""
    other = tokens.flip(1)
    a, b = model.state_after(tokens[:, :9]), model.state_after(other[:, :9])
    spliced = a.splice(b, layers=[0, 3])
    by_hand = {n: (b if n in ("blocks.0.mixer", "blocks.3.mixer") else a).carries[n] for n in a.carries}
    same(spliced, ModelState(by_hand))
    same(a, model.state_after(tokens[:, :9]))
    out = model(tokens[:, 9:], spliced)
    assert relative_error(out, model(tokens[:, 9:], a)) > 1e-4 and relative_error(out, model(tokens[:, 9:], b)) > 1e-4
    assert_close(model(tokens[:, 9:], a.splice(b, layers=range(5))), model(tokens[:, 9:], b), kind="scan")


def test_splice_refuses_what_does_not_fit(model, tokens):
    a, b = model.state_after(tokens), model.state_after(tokens[:1])
    with pytest.raises(ValueError, match=r"layer 7; this state has blocks\.0\.mixer"):
        a.splice(a, layers=[7])
    with pytest.raises(ValueError, match=r"blocks.0.mixer.h has shape \(2, 7\); \(1, 7\) was given"):
        a.splice(b, layers=[0])
    with pytest.raises(ValueError, match="holds a LSTMCarry; a NoneType was given"):
        a.splice(ModelState({}), layers=[0])


def test_a_key_value_cache_of_another_length_fits(model, tokens):
    long, short = model.state_after(tokens), model.state_after(tokens[:, :4])
    spliced = long.splice(short, layers=[1])
    assert spliced.layers[1].carry.k.shape[1] == 4
    assert torch.isfinite(model(tokens, spliced)).all()


def test_a_carry_can_be_read_and_assigned(model, tokens):
    state = model.state_after(tokens[:, :9])
    changed = state.clone()
    carry = changed.layers[2].carry
    changed.layers[2].carry = carry._replace(S=carry.S * 2)
    same(state, model.state_after(tokens[:, :9]))
    from strobe.models.hooked import StateEdit

    expected = model(tokens, edits=[StateEdit(layer=2, position=8, kind="scale", value=2.0)])[:, 9:]
    # Layers after the edited one saw the same tokens up to 8 either way.
    assert_close(model(tokens[:, 9:], changed), expected, kind="scan")


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (lambda c: c._replace(S=c.S[:, :1]), r"blocks.2.mixer.S has shape \(2, 2, 4, 3\); \(2, 1, 4, 3\) was given"),
        (
            lambda c: c._replace(conv=c.conv[:, :2]),
            r"blocks.2.mixer.conv has shape \(2, 3, 14\); \(2, 2, 14\) was given",
        ),
        (lambda c: c._replace(S=c.S[:1]), r"\(1, 2, 4, 3\) was given"),
        (lambda c: c._replace(S=0.0), r"\(\) was given"),
        (lambda c: tuple(c), "holds a Carry; a tuple was given"),
        (lambda c: namedtuple("Carry", c._fields)(*c), "holds a Carry; a Carry was given"),
    ],
)
def test_a_carry_that_does_not_fit_is_refused(model, tokens, new, message):
    state = model.state_after(tokens)
    with pytest.raises(ValueError, match=message):
        state.layers[2].carry = new(state.layers[2].carry)


def test_layers_without_a_carry(model, tokens):
    state = model.state_after(tokens)
    assert [layer.name for layer in state.layers] == [f"blocks.{i}.mixer" for i in range(5)]
    with pytest.raises(IndexError, match=r"layer 5 has no carry in this state; there are blocks\.0\.mixer"):
        _ = state.layers[5]


def test_a_row_continues_alone(model, tokens):
    row = model.state_after(tokens[:, :9]).row(1)
    assert_close(model(tokens[1:, 9:], row), model(tokens)[1:, 9:], kind="scan")


def test_a_clone_shares_nothing(model, tokens):
    state = model.state_after(tokens)
    copy = state.clone()
    for carry in copy.carries.values():
        for x in carry:
            x.zero_()
    copy.info["new"] = 1
    same(state, model.state_after(tokens))
    assert state.info == {}


def test_a_state_of_another_batch_or_model_is_refused_by_the_model(model, tokens):
    state = model.state_after(tokens)
    with pytest.raises(ValueError, match="the state is of a batch of 2, the inputs of 1"):
        model(tokens[:1], state)
    with pytest.raises(ValueError, match=r"has a carry 'blocks.9.mixer'"):
        model(tokens, ModelState({"blocks.9.mixer": state.carries["blocks.0.mixer"]}))
