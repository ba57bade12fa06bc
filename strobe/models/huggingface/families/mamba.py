"""Mamba (state-spaces/mamba), FalconMamba and Jamba, which holds it between layers of attention: `mamba` takes the
place of transformers' MambaMixer, FalconMambaMixer and JambaMambaMixer."""

from functools import partial
from typing import Any

from strobe.models.huggingface.experts import without_grouped_product
from strobe.models.huggingface.seam import Family, Transplant, require
from strobe.models.mixers.mamba import Config, Mamba

_TENSORS = {
    "in_proj.weight": "in_proj.weight",
    "in_proj.bias": "in_proj.bias",
    "conv_weight": "conv1d.weight",
    "conv_bias": "conv1d.bias",
    "x_proj.weight": "x_proj.weight",
    "dt_proj.weight": "dt_proj.weight",
    "dt_proj.bias": "dt_proj.bias",
    "A_log": "A_log",
    "D": "D",
    "out_proj.weight": "out_proj.weight",
    "out_proj.bias": "out_proj.bias",
}


def _build(theirs: Any, *, normed: bool) -> Mamba:
    require(FALCON_MAMBA if normed else MAMBA, {"hidden_act": (theirs.activation, "silu")})
    return Mamba(
        Config(
            d_model=theirs.hidden_size,
            inner=theirs.intermediate_size,
            state=theirs.ssm_state_size,
            rank=theirs.time_step_rank,
            kernel=theirs.conv_kernel_size,
            conv_bias=theirs.use_conv_bias,
            proj_bias=theirs.use_bias,
            norm_eps=theirs.rms_eps if normed else None,
        )
    )


def _family(model_type: str, prefix: str, *, normed: bool) -> Family:
    return Family(
        model_type=model_type,
        architecture=f"{prefix}ForCausalLM",
        blocks="backbone.layers",
        releases=("5.23.0",),
        transplants=(
            Transplant(
                module=f"transformers.models.{model_type}.modeling_{model_type}",
                replaces=f"{prefix}Mixer",
                ours="Mamba",
                slot="mixer",
                build=partial(_build, normed=normed),
                call=("hidden_states", "cache_params", "attention_mask"),
                tensors=_TENSORS,
                # Ones, kept for a fused kernel; the norm of delta, B and C has no weights.
                unused=("dt_layernorm.weight", "b_layernorm.weight", "c_layernorm.weight") if normed else (),
            ),
        ),
    )


def _build_jamba(theirs: Any) -> Mamba:
    require(JAMBA, {"hidden_act": (theirs.activation, "silu")})
    return Mamba(
        Config(
            d_model=theirs.hidden_size,
            inner=theirs.intermediate_size,
            state=theirs.ssm_state_size,
            rank=theirs.time_step_rank,
            kernel=theirs.conv_kernel_size,
            conv_bias=theirs.use_conv_bias,
            proj_bias=theirs.use_bias,
            norm_eps=theirs.dt_layernorm.variance_epsilon,
            norm_weights=True,
        )
    )


def _overlay_jamba(components: dict[str, Any], config: Any) -> None:
    """A router of theirs returns several tensors, which no hook point takes: what follows the mixer is seen whole."""
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    components["blocks"].submodules["mlp"] = GeneralizedComponent(name="feed_forward")


MAMBA = _family("mamba", "Mamba", normed=False)
FALCON_MAMBA = _family("falcon_mamba", "FalconMamba", normed=True)
JAMBA = Family(
    model_type="jamba",
    architecture="JambaForCausalLM",
    blocks="model.layers",
    releases=("5.23.0",),
    attention=("full_attention",),
    masks_by_kind=True,
    prepare=without_grouped_product,
    overlay=_overlay_jamba,
    transplants=(
        Transplant(
            module="transformers.models.jamba.modeling_jamba",
            replaces="JambaMambaMixer",
            ours="Mamba",
            slot="mamba",
            build=_build_jamba,
            call=("hidden_states", "cache_params", "attention_mask"),
            tensors=_TENSORS
            | {
                "dt_norm_weight": "dt_layernorm.weight",
                "B_norm_weight": "b_layernorm.weight",
                "C_norm_weight": "c_layernorm.weight",
            },
        ),
    ),
)
FAMILIES = (MAMBA, FALCON_MAMBA, JAMBA)
