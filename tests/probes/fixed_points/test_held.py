"""Oracle: the model itself, run on the held token until it stands still; and torch's autodiff for the spectra.

Further: a delta rule without decay, whose continuum is known, and a drifting head, which has no fixed point.
"""

import math

import numpy as np
import pytest
import torch

import strobe
from strobe.kernels.linear import Transition
from strobe.models import HookedLM, ModelConfig
from strobe.probes.fixed_points import HeldFixedPoint, fixed_points, held_fixed_point
from strobe.probes.fixed_points.affine import solve_affine
from strobe.probes.fixed_points.held import settled_input
from strobe.probes.fixed_points.settling import hold

OPTIONS = {
    "mamba2": {"heads": 3, "head_dim": 4, "state": 5},
    "mamba": {"inner": 12, "state": 4, "rank": 2},
    "gated_deltanet": {"heads": 2, "key": 4, "value": 3},
    "mingru": {"hidden": 10},
    "rglru": {"inner": 8, "heads": 2},
    "rwkv4": {"hidden": 8},
    "rwkv4_channel_mix": {"d_mlp": 12},
    "gru": {"hidden": 6},
    "attention": {"n_heads": 2},
}
LINEAR = ["mamba2", "mamba", "gated_deltanet", "mingru", "rglru", "rwkv4"]


def build(*layers):
    config = ModelConfig(
        d_model=8,
        d_vocab=13,
        layers=layers,
        mixer_options={n: OPTIONS[n] for n in layers},
        mlp="plain",
        d_mlp=16,
        tie_embeddings=False,
        seed=1,
    )
    model = HookedLM(config, name="small").eval().double().requires_grad_(False)
    generator = torch.Generator().manual_seed(7)
    for p in model.parameters():
        # Short memories, so that 4000 tokens are many lifetimes.
        p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def simulated(model, token, layer, steps=4000):
    state = model.state_after(torch.full((1, steps), token))
    return state.carries[f"blocks.{layer}.mixer"]


@pytest.mark.parametrize("name", LINEAR)
def test_a_layer_goes_to_its_rest_as_its_own_operator_says(name):
    """4,000 tokens from the empty carry: what is left of the distance is A^n applied to it, fast heads and slow."""
    model = build(name)
    result = held_fixed_point(model, 3)
    rest = torch.from_numpy(result.memory)
    # The windows are full by then, so that one operator follows another.
    early, late = simulated(model, 3, 0, 8), simulated(model, 3, 0, 4008)
    here = hold(model.mixers["blocks.0.mixer"], settled_input(model, 3, "blocks.0.mixer"))
    if name == "rwkv4":
        # Its running maximum may have to come down to what it is at rest, so distances are compared off it.
        scale = torch.exp(early.max[0] - late.max[0])
        gap = (early.num[0] * scale - rest) * torch.exp(4000 * here.phases[0].w)
        reached = late.num[0]
    else:
        reached, gap = getattr(late, result.field)[0], getattr(early, result.field)[0] - rest
        transition = here.mixer.family.transition(here.phases[0])
        for _ in range(4000):
            gap = transition.apply(gap[None])[0]
    torch.testing.assert_close(reached, rest + gap, rtol=0, atol=1e-12)
    assert result.speed < 1e-12 * (1 + np.abs(result.memory).max())
    assert set(result.status) == {"stable"}


@pytest.mark.parametrize("name", ["mamba2", "mamba", "gated_deltanet", "mingru", "rglru"])
def test_the_spectrum_is_that_of_the_step(name):
    model = build(name)
    result = held_fixed_point(model, 3)
    here = hold(model.mixers["blocks.0.mixer"], settled_input(model, 3, "blocks.0.mixer"))
    shape = here.start[0].shape

    def step(x):
        return here.mixer.family.step(here.phases[0], type(here.start)(x.view(shape)))[0][0].flatten()

    dense = torch.linalg.eigvals(torch.func.jacrev(step)(torch.zeros(math.prod(shape), dtype=torch.float64)))
    ours = np.repeat(result.eigenvalues.ravel(), result.multiplicity)
    assert len(ours) == len(dense)
    np.testing.assert_allclose(np.sort(ours.real), np.sort(dense.numpy().real), rtol=0, atol=1e-12)


@pytest.mark.parametrize("below", ["attention", "gru"])
def test_above_attention_and_above_a_cell_that_comes_to_rest(below):
    model = build(below, "mamba2")
    result = held_fixed_point(model, 5, 1)
    reached = simulated(model, 5, 1, 1000).S[0].numpy()
    np.testing.assert_allclose(result.memory, reached, rtol=0, atol=1e-12)


# Loading leaves a file to the garbage collector, which says so.
def test_the_bundled_flip_flop_has_27_points_and_8_memories():
    model = strobe.load("flipflop-elman16")
    before = [(p.requires_grad, p.detach().clone()) for p in model.parameters()]
    result = fixed_points(model, n_initial=128)
    assert np.bincount(result.index).tolist() == [8, 12, 6, 1]
    assert result.index_sum == 1
    h = torch.from_numpy(result.points[result.stable]).float()
    assert len({tuple(row) for row in torch.sign(model.unembed(h)).tolist()}) == 8
    # The network itself stays at them.
    for i in range(8):
        state = model.init_state(1)
        state.carries["blocks.0.mixer"] = type(state.carries["blocks.0.mixer"])(h[i : i + 1])
        after = model.state_after(torch.zeros(1, 1, 3), state).carries["blocks.0.mixer"].h
        torch.testing.assert_close(after, h[i : i + 1], rtol=0, atol=1e-5)
    held = fixed_points(model, held=[1.0, 0.0, 0.0], n_initial=128, control=None)
    assert len(held.points) < 27
    assert "1.0" in held.held
    assert all(p.requires_grad == r and torch.equal(p, q) for p, (r, q) in zip(model.parameters(), before, strict=True))


def test_a_delta_rule_without_decay_keeps_what_it_does_not_write():
    k = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
    v = torch.tensor([2.0, -1.0], dtype=torch.float64)
    transition = Transition(
        decay=torch.ones(1, 1, 1, dtype=torch.float64),
        key=k[None],
        value=v[None],
        left=-k[None, :, None],
        right=k[None, :, None],
    )
    found = solve_affine(transition, (1, 3, 2))
    assert found.status == ["continuum"]
    torch.testing.assert_close(k @ found.memory[0], v)
    assert sorted(found.eigenvalues[0].abs().round(decimals=9).tolist()) == [0, 1, 1]


def test_a_head_that_drifts_has_no_fixed_point():
    transition = Transition(
        decay=torch.tensor([1.0, 0.5, 1.0], dtype=torch.float64),
        value=torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64),
    )
    found = solve_affine(transition, (3,))
    assert found.status == ["none", "stable", "continuum"]
    assert torch.isnan(found.memory[0])
    assert found.memory[1] == 2


def test_what_cannot_be_held_is_refused():
    with pytest.raises(ValueError, match="no recurrent layer"):
        held_fixed_point(build("attention"), 1)
    with pytest.raises(ValueError, match=r"recurrent layers \[0, 1\]; say which"):
        held_fixed_point(build("mamba2", "gru"), 1)
    with pytest.raises(ValueError, match="fixed_points searches it"):
        held_fixed_point(build("gru"), 1)
    with pytest.raises(ValueError, match="held_fixed_point solves it"):
        fixed_points(build("mamba2"), held=1)
    with pytest.raises(ValueError, match="give an id"):
        held_fixed_point(build("mamba2"), None)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        held_fixed_point(build("mamba2"), 99)


def test_a_result_survives_its_file_and_draws(tmp_path):
    result = held_fixed_point(strobe.load("mamba2-python"), "x", 1)
    assert HeldFixedPoint.load(result.save(tmp_path / "held.safetensors")) == result
    figure = result.figure()
    assert figure.layout.yaxis.title.text == "longest timescale, tokens"
    np.testing.assert_allclose(figure.data[1].y, np.sort(result.timescales[:, 0]))
    np.testing.assert_allclose(result.eigenvalue_figure().data[2].x, result.eigenvalues.real.ravel())
    assert len(result.to_frame()) == result.eigenvalues.size
    assert "input permuted" in result.summary()
