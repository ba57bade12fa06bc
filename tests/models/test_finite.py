"""Oracle: the NaN is put in by hand, at a known place, and the error has to name that place."""

import pytest
import torch

from strobe.core.errors import NonFiniteActivation
from strobe.models import HookedLM, ModelConfig, StateEdit


@pytest.fixture
def model():
    options = {"gru": {"hidden": 8}, "mamba2": {"heads": 2, "head_dim": 4, "state": 4}}
    config = ModelConfig(d_model=8, d_vocab=11, layers=["mamba2", "gru"], mixer_options=options, d_mlp=16)
    return HookedLM(config, name="tiny").eval().requires_grad_(False)


TOKENS = torch.tensor([[1, 2, 3, 4, 5, 6]])


def test_a_weight_that_is_nan_is_named_with_the_first_activation_it_spoils(model):
    model.blocks[1].mlp.W_in.weight[0, 0] = torch.nan
    with torch.no_grad(), pytest.raises(NonFiniteActivation) as error:
        model(TOKENS)
    assert "'blocks.1.mlp.hook_pre'" in str(error.value)
    assert "'blocks.1.mlp.W_in.weight'" in str(error.value)
    assert "position 0" in str(error.value)


def test_an_edit_that_puts_nan_into_a_carry_is_found_at_the_token_after_it(model):
    edit = StateEdit(layer=0, position=2, kind="scale", value=float("nan"))
    with torch.no_grad(), pytest.raises(NonFiniteActivation) as error:
        model.run_with_edits(TOKENS, [edit])
    assert "position 3" in str(error.value)
    assert "'blocks.0.mixer.hook_read'" in str(error.value)
    assert "every weight is finite" in str(error.value)


def test_padding_may_hold_anything_and_gradients_are_the_training_loops_business(model):
    def spoil(x, hook):
        x = x.clone()
        x[0, -1] = torch.nan
        return x

    mask = torch.tensor([[True] * 5 + [False]])
    with torch.no_grad():
        model.run_with_hooks(TOKENS, mask=mask, fwd_hooks=[("blocks.1.hook_resid_post", spoil)])
    logits = model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.hook_resid_post", spoil)])
    assert torch.isnan(logits[0, -1]).all()
