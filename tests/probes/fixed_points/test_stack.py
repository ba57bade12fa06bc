"""Oracle: the model itself, put to rest and run for 4,000 tokens; and autodiff of one pass for the joint spectrum."""

import numpy as np
import pytest
import torch

from strobe.models import HookedLM, ModelConfig
from strobe.probes.fixed_points import HeldStack, fixed_points, held_fixed_point, held_stack
from strobe.probes.fixed_points.held import settled_layers

OPTIONS = {
    "mamba2": {"heads": 3, "head_dim": 4, "state": 5},
    "gated_deltanet": {"heads": 2, "key": 4, "value": 3},
    "mingru": {"hidden": 6},
    "rwkv4": {"hidden": 8},
    "rwkv4_channel_mix": {"d_mlp": 12},
    "gru": {"hidden": 6},
    "attention": {"n_heads": 2},
}
STACKS = [("mamba2", "gated_deltanet"), ("rwkv4", "rwkv4_channel_mix", "mingru"), ("gru", "mamba2")]


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
        p.add_(0.3 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


@pytest.mark.parametrize("layers", STACKS)
@pytest.mark.parametrize("turn", [[5], [5, 2, 7]])
def test_a_model_at_rest_stays_there_for_4000_tokens(layers, turn):
    """Layer by layer in closed form: no head is left out, however slow it is."""
    model = build(*layers)
    result = held_stack(model, turn)
    assert result.moved.max() < 1e-12
    _, state = settled_layers(model, turn)
    n = 4000 // len(turn)
    after = model.state_after(torch.tensor(turn * n)[None], state)
    for name, carry in state.carries.items():
        for field, x in carry._asdict().items():
            torch.testing.assert_close(
                getattr(after.carries[name], field), x, rtol=0, atol=1e-11, msg=f"{name} {field}"
            )


@pytest.mark.parametrize("layers", [("mamba2", "mingru"), ("gru", "mingru")])
def test_the_spectrum_is_that_of_all_the_carries_together(layers):
    """One pass of the whole model as a map of every carry, windows included, differentiated at rest."""
    model = build(*layers)
    result = held_stack(model, 5)
    _, state = settled_layers(model, 5)
    fields = [(name, f, x) for name, c in state.carries.items() for f, x in c._asdict().items()]
    sizes = [x.numel() for _, _, x in fields]

    def step(flat):
        parts = [p.view(x.shape) for p, (_, _, x) in zip(flat.split(sizes), fields, strict=True)]
        new = {}
        for (name, f, _), part in zip(fields, parts, strict=True):
            new.setdefault(name, {})[f] = part
        start = state.clone()
        start.carries = {name: type(state.carries[name])(**given) for name, given in new.items()}
        after = model.forward(torch.tensor([[5]]), start, return_type="state", check=False)[1]
        return torch.cat([getattr(after.carries[name], f).flatten() for name, f, _ in fields])

    at = torch.cat([x.flatten() for _, _, x in fields])
    every = torch.linalg.eigvals(torch.autograd.functional.jacobian(step, at)).numpy()
    ours = np.repeat(result.eigenvalues, result.multiplicity)
    padded = np.concatenate([ours, np.zeros(len(every) - len(ours))])
    # The windows are nilpotent: rounding spreads their zeros, 1e-16 ** (1 / 4) and less.
    np.testing.assert_allclose(np.sort(np.abs(padded)), np.sort(np.abs(every)), atol=2e-4)
    large = np.abs(every) > 0.01
    np.testing.assert_allclose(np.sort(np.abs(every[large])), np.sort(np.abs(ours[np.abs(ours) > 0.01])), atol=1e-9)


@pytest.mark.parametrize("name", ["mamba2", "gated_deltanet", "rwkv4"])
def test_tokens_in_turn_make_a_cycle(name):
    model = build(name)
    turn = [5, 2, 7]
    result = held_fixed_point(model, turn)
    assert result.turn == 3
    np.testing.assert_allclose(result.cycle[-1], result.memory, atol=1e-14)
    _, state = settled_layers(model, turn)
    for t, token in enumerate(turn):
        state = model.state_after(torch.tensor([[token]]), state)
        carry = state.carries["blocks.0.mixer"]
        memory = getattr(carry, result.field)[0]
        if name == "rwkv4":
            # The probe gives num under the maximum of the whole turn; the running one may have been refreshed.
            assert result.cycle.shape == (3, 8)
        torch.testing.assert_close(torch.from_numpy(result.cycle[t]), memory, rtol=0, atol=1e-12)
    tau = held_fixed_point(model, [5, 5, 5])
    once = held_fixed_point(model, 5)
    np.testing.assert_allclose(np.sort(tau.timescales.ravel()), np.sort(once.timescales.ravel()), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(tau.memory, once.memory, rtol=1e-9, atol=1e-12)


def test_a_nonlinear_layer_under_a_turn_is_searched_over_the_turn():
    model = build("gru")
    result = fixed_points(model, held=[5, 2, 7], n_initial=16)
    assert "[5, 2, 7]" in result.held
    assert result.control is not None
    x = torch.from_numpy(result.points[:1])
    state = model.init_state(1)
    state.carries["blocks.0.mixer"] = type(state.carries["blocks.0.mixer"])(x)
    after = model.state_after(torch.tensor([[5, 2, 7]]), state).carries["blocks.0.mixer"].h
    torch.testing.assert_close(after, x, rtol=0, atol=1e-11)
    assert (model.state_after(torch.tensor([[5]]), state).carries["blocks.0.mixer"].h - x).abs().max() > 1e-3


def test_what_does_not_come_to_rest_is_refused():
    with pytest.raises(ValueError, match="attends over all"):
        held_stack(build("attention", "mamba2"), [5, 2])
    assert held_stack(build("mamba2", "attention"), 5).names == ["blocks.0.mixer"]
    assert held_fixed_point(build("mamba2", "attention"), [5, 2], 0).turn == 2
    with pytest.raises(ValueError, match="depth_orbit"):
        held_stack(build("attention"), 5)
    with pytest.raises(ValueError, match="ids that come in turn"):
        held_stack(build("mamba2"), [])


def test_a_stack_survives_its_file_and_draws(tmp_path):
    result = held_stack(build("gru", "mamba2"), 5)
    assert HeldStack.load(result.save(tmp_path / "stack.safetensors")) == result
    figure = result.figure()
    assert figure.layout.yaxis.title.text == "timescale, tokens"
    drawn = np.sort(np.array(figure.data[1].y))
    np.testing.assert_allclose(drawn, np.sort(result.timescales[result.timescales > 0]))
    assert len(result.to_frame()) == len(result.eigenvalues)
    assert "run to rest, no control" in result.summary()
    assert result.multiplicity[result.of == 1].sum() == 3 * 4 * 5
