"""Oracle: the model of transformers that ours was made of: its tensors before, its hidden states, its limits."""

import pytest
import torch
from huggingface_cases import TIME, make, pair, recurrent, tokens

from strobe.core.tolerances import assert_close, relative_error
from strobe.models.huggingface import HuggingFaceLM
from strobe.models.huggingface.loading import families, wrap


@recurrent
@torch.no_grad()
def test_tensors_are_shared_and_not_copied(name):
    theirs = make(name)
    before = {parameter.data_ptr(): key for key, parameter in theirs.named_parameters()}
    model = wrap(theirs, families.get(name))
    assert all(parameter.data_ptr() in before for parameter in model.parameters())
    assert {key for key, _ in model.named_parameters()} == set(before.values())
    assert isinstance(model, HuggingFaceLM)
    flags = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    assert all(flags.values())


@torch.no_grad()
def test_rwkv_weights_stay_those_of_the_checkpoint():
    theirs = make("rwkv")
    saved = {key: parameter.clone() for key, parameter in theirs.named_parameters()}
    model = wrap(theirs, families.get("rwkv"))
    rows = tokens(2, TIME)
    _, cache = model.run_with_cache(rows)
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter.flatten(), saved[key].flatten()), key
    # transformers in evaluation halves the residual stream after every layer of this configuration.
    halved = make("rwkv")(rows, output_hidden_states=True, use_cache=False).hidden_states
    assert_close(cache["blocks.1.hook_resid_post"], 4 * halved[1], kind="logits")


@torch.no_grad()
def test_a_call_of_recurrent_gemma_leaves_nothing_behind():
    model, rows = pair("recurrent_gemma")[1], tokens(2, TIME)
    first = model(rows)
    model(tokens(2, 1, seed=5))
    model.bridge(tokens(2, 1, seed=6))
    assert torch.equal(model(rows), first)
    assert torch.equal(model(rows[:, :1]), first[:, :1]) or relative_error(model(rows[:, :1]), first[:, :1]) < 1e-6


def test_gpt2_has_no_position_beyond_its_table():
    with pytest.raises(ValueError, match=r"position 64 was asked of .* 64 positions"):
        pair("gpt2")[1](tokens(1, 65))
