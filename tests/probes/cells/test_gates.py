"""Oracle: gates set by hand: a bias of +20 holds a gate open, -20 shut, 0 with no weights at one half."""

import numpy as np
import pytest
import torch

from strobe.models import HookedLM, ModelConfig
from strobe.probes.cells.gates import GateSaturation, gate_saturation

TOKENS = np.random.default_rng(0).integers(0, 31, (2, 13))
OPTIONS = {
    "lstm": {"hidden": 6},
    "gru": {"hidden": 6},
    "mamba2": {"heads": 3, "head_dim": 4, "state": 5},
    "elman": {"hidden": 6},
    "attention": {"n_heads": 2},
}


def model_of(*layers):
    options = {name: OPTIONS[name] for name in set(layers)}
    return HookedLM(ModelConfig(d_model=16, d_vocab=31, layers=list(layers), mixer_options=options, mlp="none"))


def test_an_open_forget_gate_is_right_saturated_a_shut_input_gate_left_and_half_is_neither():
    model = model_of("lstm")
    mixer = model.blocks[0].mixer
    with torch.no_grad():
        mixer.W.zero_(), mixer.R.zero_(), mixer.b.zero_()
        # In the order i, f, g, o; unit 2's forget gate stays at one half.
        mixer.b[:6], mixer.b[6:12], mixer.b[8], mixer.b[12:18] = -20, 20, 0, -1
    found = gate_saturation(model, TOKENS)
    assert found.names == ["block 0 i", "block 0 f", "block 0 o"], "a candidate that is below 0 is no gate"
    frame = found.to_frame().set_index(["gate", "unit"])
    assert (frame.loc["block 0 i", "left"] == 1).all() and (frame.loc["block 0 i", "right"] == 0).all()
    assert frame.loc["block 0 f", "right"].tolist() == [1, 1, 0, 1, 1, 1]
    assert frame.loc["block 0 f", "left"].tolist() == [0] * 6
    assert (frame.loc["block 0 o", ["left", "right"]] == 0).all(axis=None)
    # Permuted, the biases lie about anywhere.
    assert 0 < frame["control_right"].mean() < 1


def test_shares_are_counted_over_all_tokens_against_the_gate_itself():
    model = model_of("gru")
    with torch.no_grad():
        model.blocks[0].mixer.W *= 12
    found = gate_saturation(model, TOKENS)
    z = model.run_with_cache(torch.from_numpy(TOKENS))[1]["blocks.0.mixer.hook_gate_z"].detach().flatten(0, 1).numpy()
    rows = found.gate == found.names.index("block 0 z")
    np.testing.assert_allclose(found.left[rows], (z < 0.1).mean(0))
    np.testing.assert_allclose(found.right[rows], (z > 0.9).mean(0))
    assert found.left[rows].any() and found.right[rows].any() and found.n_tokens == 26


def test_a_linear_mixer_shows_its_decay_and_what_has_none_is_said(tmp_path):
    model = model_of("mamba2", "attention", "elman")
    with torch.no_grad():
        # exp(-A dt) with A nearly 0 keeps everything.
        model.blocks[0].mixer.A_log[0] = -20
    found = gate_saturation(model, TOKENS)
    assert found.names == ["block 0 decay"] and len(found.right) == 3 and found.right[0] == 1
    assert len(found.notes) == 2 and "Elman" in found.notes[1] and "block 1" in found.notes[0]
    assert GateSaturation.load(found.save(tmp_path / "gates.safetensors")) == found
    assert len(found.figure().data) == 2 and "block 0 decay" in found.summary()


def test_a_model_without_gates_is_refused():
    with pytest.raises(ValueError, match="block 0 carries nothing"):
        gate_saturation(model_of("attention"), TOKENS)
    with pytest.raises(ValueError, match="no token"):
        gate_saturation(model_of("gru"), np.zeros((1, 0), dtype=int))
