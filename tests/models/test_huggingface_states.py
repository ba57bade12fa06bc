"""Oracle: our own mixer one token at a time in float64; edits done on the carry by hand; directional differences.

For attention, whose state is a cache of keys and values: the full forward of the same transformers release.
"""

import copy

import pytest
import torch
from huggingface_cases import CUT, TIME, VOCAB, oracle, pair, recurrent, recurrent_layers, tokens

from strobe.core.tolerances import assert_close, relative_error
from strobe.models.hooked import StateEdit
from strobe.models.run import Run


@recurrent
@torch.no_grad()
def test_captured_states_equal_single_steps_in_float64(name):
    model, rows = pair(name)[1], tokens(2, TIME)
    positions = [0, 4, CUT, -1]
    names = [n for m in model.mixers for n in model.hook_dict if n.startswith((f"{m}.hook_state_", f"{m}.hook_in"))]
    _, cache = model.run_with_cache(rows, names_filter=names, states=positions)
    for key, mixer in model.mixers.items():
        exact = copy.deepcopy(mixer).double()
        carry = exact.init_carry(2, torch.float64, torch.device("cpu"))
        steps = []
        for x in cache[f"{key}.hook_in"].double().split(1, 1):
            exact.run = Run(carries={key: carry}, backend="reference")
            exact(x)
            carry = exact.run.after[key]
            steps.append(carry)
        for field in mixer.Carry._fields:
            expected = torch.stack([getattr(steps[p], field) for p in positions], 1)
            assert_close(cache[f"{key}.hook_state_{field}"], expected, kind="logits", dtype=torch.float32)


@recurrent
@torch.no_grad()
def test_an_edit_moves_what_follows_as_if_done_by_hand(name):
    model, rows = pair(name)[1], tokens(2, TIME)
    plain = model(rows)
    for key in recurrent_layers(model)[:2]:
        layer, field = int(key.split(".")[1]), model.mixers[key].memory
        edit = StateEdit(layer=layer, position=CUT, kind="scale", value=-0.5)
        edited = model.run_with_edits(rows, [edit])

        def halve(carry, hook, field=field):
            return carry._replace(**{field: getattr(carry, field) * -0.5})

        hooked = model.run_with_hooks(rows, fwd_hooks=[(f"{key}.hook_carry", halve)], states=[CUT])
        state = model.state_after(rows[:, : CUT + 1])
        carry = state.layers[layer].carry
        state.layers[layer].carry = carry._replace(**{field: getattr(carry, field) * -0.5})
        by_hand = model(rows[:, CUT + 1 :], state=state)
        assert_close(edited[:, CUT + 1 :], by_hand, kind="logits")
        assert_close(hooked[:, CUT + 1 :], by_hand, kind="logits")
        assert_close(edited[:, : CUT + 1], plain[:, : CUT + 1], kind="logits")
        assert relative_error(edited[:, CUT + 1], plain[:, CUT + 1]) > 1e-4


@recurrent
def test_the_gradient_of_a_carry_is_its_directional_difference(name):
    model, rows = pair(name, torch.float64)[1], tokens(2, TIME)
    state = model.state_after(rows[:, :CUT])
    key = recurrent_layers(model)[0]
    layer, field = int(key.split(".")[1]), model.mixers[key].memory
    carry = state.layers[layer].carry
    weight = torch.randn(2, TIME - CUT, VOCAB, dtype=torch.float64)

    def score(memory):
        state.layers[layer].carry = carry._replace(**{field: memory})
        return (model(rows[:, CUT:], state=state) * weight).sum()

    memory = getattr(carry, field).clone().requires_grad_(True)
    (grad,) = torch.autograd.grad(score(memory), memory)
    # Norms of transformers compute in float32 whatever the model's dtype: a smaller step measures their rounding. In
    # qwen3_next a larger one changes which experts are chosen.
    size = 1e-5 if name == "qwen3_next" else 1e-3
    step = size * grad * (memory.detach().norm() / grad.norm())
    with torch.no_grad():
        slope = (score(memory + step) - score(memory - step)) / 2
    assert relative_error((grad * step).sum().view(1), slope.view(1)) < 1e-2


@torch.no_grad()
def test_states_of_attention_are_key_value_caches_that_must_agree():
    model, rows = pair("llama")[1], tokens(2, TIME)
    state = model.state_after(rows)
    assert list(state.carries) == ["blocks.0.mixer", "blocks.1.mixer"]
    assert state.layers[0].carry.k.shape == (2, TIME, 2, 8)
    with pytest.raises(ValueError, match="must have seen the same tokens"):
        model(rows, state=state.splice(model.state_after(rows[:, :5]), layers=[1]))
    both = state.splice(model.state_after(tokens(2, TIME, seed=9)), layers=[0, 1])
    swapped = oracle("llama", torch.cat([tokens(2, TIME, seed=9), rows], 1))[:, TIME:]
    assert_close(model(rows, state=both), swapped, kind="logits")


@torch.no_grad()
def test_a_window_keeps_only_what_it_can_reach():
    state = pair("mistral")[1].state_after(tokens(2, TIME))
    assert state.layers[0].carry.k.shape[1] == 6
