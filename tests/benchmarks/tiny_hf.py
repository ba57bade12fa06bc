"""Tiny Hugging Face models for the benchmarks: d 256, 4 layers, random weights, the real classes."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf


def build(family: str) -> Any:
    """A random model of `family`, in evaluation mode."""
    torch.manual_seed(0)
    return _BUILDERS[family]().eval()


def save(model: Any, folder: Path) -> Path:
    """`model` as a checkpoint folder."""
    model.save_pretrained(folder)
    return folder


def _mamba() -> Any:
    return hf.MambaForCausalLM(hf.MambaConfig(vocab_size=512, hidden_size=256, num_hidden_layers=4, state_size=16))


def _mamba2() -> Any:
    return hf.Mamba2ForCausalLM(
        hf.Mamba2Config(
            vocab_size=512, hidden_size=256, num_hidden_layers=4, num_heads=8, head_dim=64, state_size=64, n_groups=1,
        )
    )  # fmt: skip


def _qwen3_next() -> Any:
    return hf.Qwen3NextForCausalLM(
        hf.Qwen3NextConfig(
            vocab_size=512, hidden_size=256, num_hidden_layers=4, intermediate_size=512, num_attention_heads=4,
            num_key_value_heads=2, head_dim=64, linear_num_key_heads=8, linear_num_value_heads=8,
            linear_key_head_dim=32, linear_value_head_dim=32, num_experts=0, decoder_sparse_step=1,
            mlp_only_layers=[0, 1, 2, 3],
        )
    )  # fmt: skip


def _recurrent_gemma() -> Any:
    return hf.RecurrentGemmaForCausalLM(
        hf.RecurrentGemmaConfig(
            vocab_size=512, hidden_size=256, num_hidden_layers=4, intermediate_size=1024, num_attention_heads=4,
            lru_width=256, attention_window_size=2048, block_types=["recurrent", "recurrent", "attention"],
        )
    )  # fmt: skip


_BUILDERS = {"mamba": _mamba, "mamba2": _mamba2, "qwen3_next": _qwen3_next, "recurrent_gemma": _recurrent_gemma}
