"""Oracle: transformers' own full forward on a token said over and over, on tiny random models of its real classes."""

import pytest
import torch
import transformers as tf

from strobe.models.huggingface import load_huggingface
from strobe.probes.fixed_points import held_fixed_point, held_stack
from strobe.probes.fixed_points.held import settled_layers

COMMON = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, **COMMON}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 7, "linear_value_head_dim": 9}
MAMBA2 = {"num_heads": 8, "head_dim": 8, "state_size": 6, "n_groups": 2, "chunk_size": 16}
MODELS = {
    "mamba": (
        tf.MambaForCausalLM,
        tf.MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=5, time_step_rank=3, **COMMON),
    ),
    "mamba2": (tf.Mamba2ForCausalLM, tf.Mamba2Config(hidden_size=32, num_hidden_layers=2, **MAMBA2, **COMMON)),
    "qwen3_next": (
        tf.Qwen3NextForCausalLM,
        tf.Qwen3NextConfig(
            num_hidden_layers=4, num_experts=0, mlp_only_layers=[0, 1, 2, 3], head_dim=8, **DELTA, **SMALL
        ),
    ),
    "recurrent_gemma": (
        tf.RecurrentGemmaForCausalLM,
        tf.RecurrentGemmaConfig(num_hidden_layers=3, lru_width=40, attention_window_size=6, **SMALL),
    ),
    "rwkv": (
        tf.RwkvForCausalLM,
        tf.RwkvConfig(hidden_size=32, attention_hidden_size=24, num_hidden_layers=3, rescale_every=0, **COMMON),
    ),
}
HELD, STEPS = 7, 700
tf.logging.disable_progress_bar()


@pytest.fixture(scope="module", params=MODELS)
def pair(request, tmp_path_factory):
    """(transformers' model, ours), with decays short enough that 700 tokens are many lifetimes."""
    kind, config = MODELS[request.param]
    torch.manual_seed(1)
    theirs = kind(config).eval()
    with torch.no_grad():
        for key, parameter in theirs.named_parameters():
            if "A_log" in key or "time_decay" in key:
                parameter.uniform_(0.0, 1.0)
            elif "dt_bias" in key or "dt_proj.bias" in key:
                parameter.uniform_(-1.0, 1.0)
            elif "recurrent_param" in key:
                parameter.uniform_(-3.0, 0.0)
            elif parameter.ndim < 2 or "conv" in key:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.save_pretrained(folder)
    return theirs, load_huggingface(folder, dtype=torch.float32)


@torch.no_grad()
def test_from_rest_the_next_token_is_what_transformers_says_after_700(pair):
    theirs, ours = pair
    stack = held_stack(ours, HELD)
    # Windows and rounding to float32 apart, one more token moves nothing.
    assert stack.moved.max() < 1e-5
    assert stack.timescales.max() < STEPS / 20
    _, state = settled_layers(ours, HELD)
    from_rest = ours.forward(torch.tensor([[HELD]]), state)[0, -1]
    said, later = (theirs(torch.full((1, n), HELD), use_cache=False).logits[0, -1] for n in (STEPS, 2 * STEPS))
    if "full_attention" in (getattr(theirs.config, "layer_types", None) or ()):
        # Its attention still sees the first tokens, with a weight of about 1 / n.
        gap, half = (said - from_rest).norm(), (later - from_rest).norm()
        assert half > 1e-4
        assert 1.5 < gap / half < 3
    else:
        torch.testing.assert_close(from_rest, said, atol=2e-4, rtol=2e-4)


@torch.no_grad()
def test_each_layer_settles_where_its_carry_goes(pair):
    _, ours = pair
    layers = [int(name.split(".")[1]) for name in ours.mixers if name.endswith(".mixer")]
    state = ours.state_after(torch.full((1, STEPS), HELD))
    for layer in (layers[0], layers[-1]):
        result = held_fixed_point(ours, HELD, layer)
        reached = getattr(state.carries[f"blocks.{layer}.mixer"], result.field)[0].numpy()
        rest = torch.from_numpy(result.memory).float()
        torch.testing.assert_close(torch.from_numpy(reached).float(), rest, atol=2e-4, rtol=2e-4)
        assert result.speed < 1e-10
