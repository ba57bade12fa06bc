"""Qwen3.5, the text model: `gated_deltanet` takes the place of transformers' Qwen3_5GatedDeltaNet."""

from typing import Any

from strobe.models.huggingface.seam import Family, Transplant, require
from strobe.models.mixers.gated_deltanet import Config, GatedDeltaNet


def _build(theirs: Any) -> GatedDeltaNet:
    require(FAMILY, {"hidden_act": (theirs.activation, "silu")})
    return GatedDeltaNet(
        Config(
            d_model=theirs.hidden_size,
            heads=theirs.num_v_heads,
            key_heads=theirs.num_k_heads,
            key=theirs.head_k_dim,
            value=theirs.head_v_dim,
            kernel=theirs.conv_kernel_size,
            norm_eps=theirs.layer_norm_epsilon,
        )
    )


FAMILY = Family(
    model_type="qwen3_5_text",
    architecture="Qwen3_5ForCausalLM",
    blocks="model.layers",
    releases=("5.23.0",),
    attention=("full_attention",),
    masks_by_kind=True,
    transplants=(
        Transplant(
            module="transformers.models.qwen3_5.modeling_qwen3_5",
            replaces="Qwen3_5GatedDeltaNet",
            ours="GatedDeltaNet",
            slot="linear_attn",
            build=_build,
            call=("hidden_states", "cache_params", "attention_mask"),
            tensors={
                "in_proj_qkv.weight": "in_proj_qkv.weight",
                "in_proj_z.weight": "in_proj_z.weight",
                "in_proj_b.weight": "in_proj_b.weight",
                "in_proj_a.weight": "in_proj_a.weight",
                "conv_weight": "conv1d.weight",
                "A_log": "A_log",
                "dt_bias": "dt_bias",
                "norm_weight": "norm.weight",
                "out_proj.weight": "out_proj.weight",
            },
        ),
    ),
)
FAMILIES = (FAMILY,)
