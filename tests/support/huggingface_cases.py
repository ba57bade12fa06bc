"""What the tests of Hugging Face families share: a tiny random model of each, theirs and ours, and the oracle."""

import copy
import functools
import tempfile

import pytest
import torch
import transformers as tf

from strobe.models.huggingface import load_huggingface

VOCAB, TIME, CUT = 61, 23, 9
COMMON = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, **COMMON}
HEADED = {**SMALL, "head_dim": 8}
DELTA = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 7,
    "linear_value_head_dim": 9,
    **HEADED,
}
MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 5, "time_step_rank": 3, **COMMON}
MAMBA2 = {"num_heads": 8, "head_dim": 8, "state_size": 6, "n_groups": 2, "chunk_size": 16}
HYBRID_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 6, "mamba_n_groups": 2, "mamba_chunk_size": 16}
EXPERTS = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4}
MODELS = {
    "mamba": (tf.MambaForCausalLM, tf.MambaConfig(**MAMBA)),
    "falcon_mamba": (tf.FalconMambaForCausalLM, tf.FalconMambaConfig(**MAMBA, use_bias=True, use_conv_bias=False)),
    "mamba2": (tf.Mamba2ForCausalLM, tf.Mamba2Config(hidden_size=32, num_hidden_layers=2, **MAMBA2, **COMMON)),
    "jamba": (
        tf.JambaForCausalLM,
        tf.JambaConfig(
            num_hidden_layers=3,
            attn_layer_period=3,
            attn_layer_offset=1,
            num_experts=4,
            mamba_d_state=5,
            mamba_dt_rank=3,
            expert_layer_period=2,
            mamba_proj_bias=True,
            **SMALL,
        ),
    ),
    "bamba": (
        tf.BambaForCausalLM,
        tf.BambaConfig(num_hidden_layers=3, attn_layer_indices=[1], mamba_conv_bias=False, **HYBRID_MAMBA2, **SMALL),
    ),
    "nemotron_h": (
        tf.NemotronHForCausalLM,
        tf.NemotronHConfig(
            layers_block_type=["linear_attention", "moe", "full_attention", "linear_attention", "mlp"],
            mamba_num_heads=8,
            mamba_head_dim=8,
            ssm_state_size=6,
            n_groups=2,
            chunk_size=16,
            n_routed_experts=4,
            moe_intermediate_size=16,
            moe_shared_expert_intermediate_size=16,
            **HEADED,
        ),
    ),
    "olmo_hybrid": (
        tf.OlmoHybridForCausalLM,
        tf.OlmoHybridConfig(
            layer_types=["linear_attention", "linear_attention", "full_attention", "linear_attention"],
            **{k: v for k, v in DELTA.items() if k != "head_dim"},
        ),
    ),
    "qwen3_next": (tf.Qwen3NextForCausalLM, tf.Qwen3NextConfig(num_experts_per_tok=2, **EXPERTS, **DELTA)),
    "qwen3_5_text": (tf.Qwen3_5ForCausalLM, tf.Qwen3_5TextConfig(**DELTA)),
    "recurrent_gemma": (
        tf.RecurrentGemmaForCausalLM,
        tf.RecurrentGemmaConfig(num_hidden_layers=3, lru_width=40, attention_window_size=6, **SMALL),
    ),
    "rwkv": (
        tf.RwkvForCausalLM,
        tf.RwkvConfig(hidden_size=32, attention_hidden_size=24, num_hidden_layers=3, rescale_every=1, **COMMON),
    ),
    "gpt2": (tf.GPT2LMHeadModel, tf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **COMMON)),
    "gpt_neox": (
        tf.GPTNeoXForCausalLM,
        tf.GPTNeoXConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, **COMMON),
    ),
    "llama": (tf.LlamaForCausalLM, tf.LlamaConfig(num_hidden_layers=2, **HEADED)),
    "mistral": (tf.MistralForCausalLM, tf.MistralConfig(num_hidden_layers=2, sliding_window=6, **HEADED)),
    "qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config(num_hidden_layers=2, **SMALL)),
    "qwen3": (tf.Qwen3ForCausalLM, tf.Qwen3Config(num_hidden_layers=2, **HEADED)),
    "gemma": (tf.GemmaForCausalLM, tf.GemmaConfig(num_hidden_layers=2, **HEADED)),
    "gemma2": (
        tf.Gemma2ForCausalLM,
        tf.Gemma2Config(num_hidden_layers=2, sliding_window=6, query_pre_attn_scalar=8, **HEADED),
    ),
}
RECURRENT = [
    "mamba", "falcon_mamba", "jamba", "mamba2", "bamba", "nemotron_h", "qwen3_next",
    "qwen3_5_text", "olmo_hybrid", "recurrent_gemma", "rwkv",
]  # fmt: skip
every = pytest.mark.parametrize("name", MODELS)
recurrent = pytest.mark.parametrize("name", RECURRENT)


def make(name):
    """A transformers model with weights large enough that every part of it matters."""
    kind, config = MODELS[name]
    torch.manual_seed(1)
    model = kind(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "A_log" in key:
                # Slow enough that the state matters many tokens later.
                parameter.uniform_(-4, -1)
            elif parameter.ndim < 2 or "conv" in key:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
        if name == "rwkv":
            # Makes the residual stream large beside the last norm's epsilon, which transformers' rescaling changes.
            model.rwkv.blocks[0].pre_ln.weight.mul_(30)
    return model


@functools.cache
def pair(name, dtype=torch.float32):
    """(transformers' model, ours loaded from what it saved)."""
    tf.logging.disable_progress_bar()
    theirs = make(name)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return theirs, load_huggingface(folder, dtype=dtype)


def tokens(*shape, seed=0):
    """Token ids none of which is padding, a beginning or an end."""
    return torch.randint(3, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def oracle(name, rows):
    """The logits of transformers' full forward, never its cached decode, which is wrong in places."""
    return pair(name)[0](rows, use_cache=False).logits


def recurrent_layers(model):
    """The names of the mixers that have a recurrent carry (the state of attention is beside them)."""
    return [n for n in model.mixers if n.endswith(".mixer")]
