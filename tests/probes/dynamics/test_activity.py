"""Oracle: the model's own states, captured apart, on native models and on transformers' real classes; simulated pairs
of carries for the exponents.
"""

import numpy as np
import pytest
import torch
import transformers as tf

from strobe.models import HookedLM, ModelConfig
from strobe.models.huggingface import load_huggingface
from strobe.probes.dynamics.activity import layer_activity
from strobe.probes.dynamics.driven import driven_lyapunov_spectrum, layer_jacobians

COMMON = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_hidden_layers": 2}
TOKENS = [5, 9, 44, 3, 17, 8, 8, 30, 2, 51, 12, 7]
tf.logging.disable_progress_bar()


def hugging(kind, config, folder):
    torch.manual_seed(1)
    kind(config).eval().save_pretrained(folder)
    return load_huggingface(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def mamba(tmp_path_factory):
    config = tf.MambaConfig(hidden_size=16, state_size=5, time_step_rank=3, **COMMON)
    return hugging(tf.MambaForCausalLM, config, tmp_path_factory.mktemp("mamba"))


def test_activity_is_the_state_after_each_token(mamba):
    activity, provenance = layer_activity(mamba, TOKENS, layer=1)
    assert activity.shape == (1, 12, 32 * 5)
    for t in (0, 6, 11):
        after = mamba.state_after(torch.tensor([TOKENS[: t + 1]]))
        name = next(n for n in after.carries if ".1." in f".{n}.")
        memory = mamba.mixers[name].memory_of(after.carries[name])[0]
        np.testing.assert_allclose(activity[0, t], memory[0].flatten().numpy(), atol=1e-5)
    assert provenance.model == mamba.model_name


def test_of_many_units_those_that_move_most_are_kept_and_it_is_said(mamba):
    every, _ = layer_activity(mamba, TOKENS, layer=0)
    some, provenance = layer_activity(mamba, TOKENS, layer=0, most=7)
    assert provenance.settings["units"] == 160 and provenance.settings["kept"] == 7
    assert some[0].std(0).min() >= np.sort(every[0].std(0))[-7] - 1e-12


def test_exponents_of_a_hugging_face_layer_are_how_its_carries_meet(mamba):
    found = driven_lyapunov_spectrum(mamba, TOKENS, layer=0, control=False)
    name = next(n for n in mamba.mixers if ".0." in f".{n}.")

    def run(scale):
        state = mamba.init_state(1)
        old = state.carries[name]
        field = mamba.mixers[name].memory_of(old)._fields[0]
        state.carries[name] = old._replace(**{field: torch.full_like(getattr(old, field), scale)})
        after = mamba.state_after(torch.tensor([TOKENS]), state).carries[name]
        return getattr(after, field)[0].double()

    # Linear in the carry: the difference of two carries shrinks by the product of the decays, entry by entry.
    ratio = ((run(2.0) - run(1.0)).abs().log() / len(TOKENS)).reshape(len(found.exponents), -1).detach().numpy()
    np.testing.assert_allclose(np.sort(found.exponents, 1), np.sort(ratio, 1), atol=1e-3)


def test_a_transformer_is_refused_with_a_reason(tmp_path):
    config = tf.LlamaConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, **COMMON
    )
    llama = hugging(tf.LlamaForCausalLM, config, tmp_path)
    with pytest.raises(ValueError, match="no recurrent layer"):
        layer_activity(llama, TOKENS)
    with pytest.raises(ValueError, match="no recurrent layer"):
        driven_lyapunov_spectrum(llama, TOKENS)


def test_a_carry_relative_to_a_maximum_is_refused_with_a_reason():
    model = HookedLM(
        ModelConfig(d_model=8, d_vocab=11, layers=["rwkv4"], mixer_options={"rwkv4": {"hidden": 8}}, mlp="none")
    )
    with pytest.raises(ValueError, match="no linear map"):
        driven_lyapunov_spectrum(model, [1, 2, 3, 4])


def test_jacobians_of_a_diagonal_layer_are_its_decays():
    options = {"heads": 2, "head_dim": 4, "state": 3}
    model = HookedLM(
        ModelConfig(d_model=8, d_vocab=11, layers=["mamba2"], mixer_options={"mamba2": options}, mlp="none")
    )
    jacobians = list(layer_jacobians(model, [1, 2, 3, 4, 5]))
    found = driven_lyapunov_spectrum(model, [1, 2, 3, 4, 5], control=False)
    mean = torch.stack([J.diagonal(dim1=-2, dim2=-1).log() for J in jacobians]).mean(0)
    np.testing.assert_allclose(found.exponents, mean.numpy(), atol=1e-12)


def test_inputs_that_are_no_sequence_are_refused():
    model = HookedLM(
        ModelConfig(d_model=8, d_vocab=11, layers=["gru"], mixer_options={"gru": {"hidden": 8}}, mlp="none")
    )
    with pytest.raises(ValueError, match="give one sequence"):
        driven_lyapunov_spectrum(model, [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="two more than that"):
        driven_lyapunov_spectrum(model, [1, 2, 3], transient=2)
