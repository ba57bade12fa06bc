"""Oracle: the full forward of the same transformers release on tiny random models of the real classes.

Never its cached decode, which is wrong in places.
"""

import pytest
import torch
from huggingface_cases import CUT, MODELS, TIME, every, oracle, pair, tokens

from strobe.core.tolerances import assert_close
from strobe.models.huggingface.loading import families


def padded(rows, lengths, side):
    ids, mask = torch.zeros_like(rows), torch.zeros(rows.shape, dtype=torch.bool)
    for i, length in enumerate(lengths):
        where = slice(rows.shape[1] - length, None) if side == "left" else slice(0, length)
        ids[i, where], mask[i, where] = rows[i, :length], True
    return ids, mask


def test_every_family_is_here():
    assert set(MODELS) == set(families.names())


@every
@torch.no_grad()
def test_logits_equal_transformers(name):
    rows = tokens(2, TIME)
    assert_close(pair(name)[1](rows), oracle(name, rows), kind="logits")


@every
@torch.no_grad()
def test_three_pieces_equal_one(name):
    model, rows = pair(name)[1], tokens(2, TIME)
    first, state = model(rows[:, :CUT], return_type="state")
    second, state = model(rows[:, CUT : CUT + 1], state=state, return_type="state")
    third = model(rows[:, CUT + 1 :], state=state)
    assert_close(torch.cat([first, second, third], 1), oracle(name, rows), kind="logits")


@every
@torch.no_grad()
def test_going_on_leaves_the_state_as_it_was(name):
    model, rows = pair(name)[1], tokens(2, TIME)
    state = model.state_after(rows[:, :CUT])
    kept = state.clone()
    once, _ = model(rows[:, CUT:], state=state, return_type="state")
    model(tokens(2, TIME, seed=3))
    assert torch.equal(model(rows[:, CUT:], state=state), once)
    for key, carry in kept.carries.items():
        assert all(torch.equal(a, b) for a, b in zip(carry, state.carries[key], strict=True))


@every
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_no_real_token_even_when_going_on(name, side):
    model, rows, lengths = pair(name)[1], tokens(2, TIME), [TIME, 14]
    ids, mask = padded(rows, lengths, side)
    logits, state = model(ids, mask=mask, return_type="state")
    more = tokens(2, 7, seed=1)
    after, state = model(more, state=state, return_type="state")
    last = model(more[:, :1], state=state)
    for i, length in enumerate(lengths):
        whole = oracle(name, torch.cat([rows[i : i + 1, :length], more[i : i + 1], more[i : i + 1, :1]], 1))
        ours = torch.cat([logits[i][mask[i]], after[i], last[i]])
        assert_close(ours, whole[0], kind="logits")


@every
@torch.no_grad()
def test_greedy_generation_is_the_argmax_of_full_forwards(name):
    model, rows = pair(name)[1], tokens(2, 5)
    made = model.generate(rows, 6, temperature=0.0)
    for _ in range(6):
        rows = torch.cat([rows, oracle(name, rows)[:, -1:].argmax(-1)], 1)
    assert torch.equal(made, rows)


@torch.no_grad()
def test_a_saved_state_goes_on(tmp_path):
    from strobe.models.state import ModelState

    model, rows = pair("qwen3_next")[1], tokens(2, TIME)
    model.state_after(rows[:, :CUT]).save(tmp_path / "state.safetensors")
    state = ModelState.load(tmp_path / "state.safetensors", model)
    assert_close(model(rows[:, CUT:], state=state), oracle("qwen3_next", rows)[:, CUT:], kind="logits")
