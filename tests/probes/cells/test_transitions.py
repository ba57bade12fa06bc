"""Oracle: eigenvalues of the step itself, by its Jacobian in float64; writes and reads from stepping by hand."""

import numpy as np
import pytest
import torch

from strobe.kernels.linear import Transition
from strobe.models import HookedLM, ModelConfig
from strobe.probes.cells.transitions import TransitionView, _moduli, transition_view

TOKENS = np.random.default_rng(0).integers(0, 31, 5).tolist()
OPTIONS = {
    "mamba2": {"heads": 2, "head_dim": 3, "state": 2},
    "gated_deltanet": {"heads": 2, "key": 3, "value": 2},
    "gru": {"hidden": 6},
}


def model_of(name):
    options = OPTIONS[name]
    config = ModelConfig(d_model=16, d_vocab=31, layers=[name], mixer_options={name: options}, mlp="none")
    return HookedLM(config).double()


@pytest.mark.parametrize("name", ["mamba2", "gated_deltanet"])
def test_moduli_writes_and_reads_are_those_of_the_step(name):
    model = model_of(name)
    found = transition_view([(model, 0)], TOKENS)
    mixer = model.blocks[0].mixer
    ids = torch.tensor([TOKENS])
    kept = []
    handle = mixer.register_forward_pre_hook(lambda _m, args: kept.append(args[0].detach()))
    model(ids)
    handle.remove()
    carry = mixer.init_carry(1, torch.float64, kept[0].device)
    signals = mixer.project(kept[0], carry, None)[0]
    memory = getattr(carry, mixer.memory)
    for t in range(5):
        here = type(signals)(*(x[:, t] for x in signals))

        def step(flat, here=here, memory=memory):
            after, read = mixer.step(here, carry._replace(**{mixer.memory: flat.view_as(memory)}))
            return getattr(after, mixer.memory).flatten(), read

        zero = torch.zeros(memory.numel(), dtype=torch.float64)
        jacobian = torch.func.jacrev(lambda flat, step=step: step(flat)[0])(zero).detach()
        moduli = torch.linalg.eigvals(jacobian).abs().numpy()
        assert found.moduli[0, t, 0] == pytest.approx(moduli.min(), abs=1e-8)
        assert found.moduli[0, t, 4] == pytest.approx(moduli.max(), abs=1e-8)
        assert found.moduli[0, t, 2] == pytest.approx(np.median(moduli), abs=1e-8)
        assert found.write[0, t] == pytest.approx(float(step(zero)[0].detach().norm()), abs=1e-10)
        memory_t, read = step(memory.flatten())
        assert found.read[0, t] == pytest.approx(float(read.detach().norm()), abs=1e-10)
        memory = memory_t.detach().view_as(memory)


def test_two_models_stand_beside_the_control(tmp_path):
    one, two = model_of("mamba2"), model_of("gated_deltanet")
    before = one.weights_hash()
    found = transition_view([(one, 0), (two, 0)], TOKENS)
    assert one.weights_hash() == before and len(found.models) == 3 and found.models[2].startswith("control")
    np.testing.assert_array_equal(found.write[1], transition_view([(two, 0)], TOKENS).write[0])
    assert not np.allclose(found.write[2], found.write[0])
    assert TransitionView.load(found.save(tmp_path / "view.safetensors")) == found
    assert len(found.figure().data) == 9 and len(found.to_frame()) == 15 and "median" in found.summary()


def test_what_has_no_transition_is_said():
    attention = HookedLM(
        ModelConfig(
            d_model=16, d_vocab=31, layers=["attention"], mixer_options={"attention": {"n_heads": 2}}, mlp="none"
        )
    )
    with pytest.raises(ValueError, match="no recurrent carry there; layers with one: none"):
        transition_view([(attention, 0)], TOKENS)
    with pytest.raises(ValueError, match="no model"):
        transition_view([], TOKENS)


def test_a_gru_is_linearised_at_the_carry_it_has_before_each_token(monkeypatch):
    model = model_of("gru")
    found = transition_view([(model, 0), (model_of("mamba2"), 0)], TOKENS)
    assert found.models[:2] == ["native block 0, linearised", "native block 0"]
    mixer, kept = model.blocks[0].mixer, []
    handle = mixer.register_forward_pre_hook(lambda _m, args: kept.append(args[0].detach()))
    model(torch.tensor([TOKENS]))
    handle.remove()
    # The step from the carry that stepping came to, differentiated by finite differences.
    carry = mixer.init_carry(1, torch.float64, kept[0].device)
    before = carry.h
    for t in range(5):

        def cell(h, t=t):
            with torch.no_grad():
                signals = mixer.project(kept[0][:, t : t + 1], carry._replace(h=h), None)[0]
                here = type(signals)(*(x[:, 0] if torch.is_tensor(x) and x.ndim == 3 else x for x in signals))
                return mixer.step(here, carry._replace(h=h))[0].h

        eye = 1e-6 * torch.eye(6, dtype=torch.float64)
        jacobian = torch.stack([(cell(before + e) - cell(before - e))[0] / 2e-6 for e in eye], 1)
        moduli = torch.linalg.eigvals(jacobian).abs().numpy()
        assert found.moduli[0, t, [0, 2, 4]] == pytest.approx([moduli.min(), np.median(moduli), moduli.max()], abs=1e-7)
        after = cell(before)
        assert found.write[0, t] == pytest.approx(float((after[0] - jacobian @ before[0]).norm()), abs=1e-7)
        before = after
    monkeypatch.setattr("strobe.probes.cells.transitions._WORK", 25 * 6**3 * 4)
    with pytest.raises(ValueError, match="at most 4 tokens"):
        transition_view([(model, 0)], TOKENS)


def test_a_negative_eigenvalue_counts_by_its_modulus():
    # 1 + l r^T has the eigenvalue 1 + r.l once and 1 otherwise.
    left = torch.tensor([1.0, 0, 2], dtype=torch.float64).view(1, 1, 1, 3, 1)
    right = torch.tensor([-0.5, 1, -1], dtype=torch.float64).view(1, 1, 1, 3, 1)
    one = torch.ones(1, 1, 1, 1, 1, dtype=torch.float64)
    moduli = _moduli(Transition(decay=one, value=one, left=left, right=right), torch.zeros(1, 1, 3, 2))
    assert moduli[0].sort().values.tolist() == pytest.approx([1, 1, 1.5])
