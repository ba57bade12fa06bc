"""Mamba-2 (state-spaces/mamba2, Codestral Mamba): `mamba2` takes the place of transformers' Mamba2Mixer."""

from typing import Any

from strobe.models.huggingface.seam import Family, Transplant, require
from strobe.models.mixers.mamba2 import Config, Mamba2


def _build(theirs: Any) -> Mamba2:
    require(FAMILY, {"hidden_act": (theirs.activation, "silu")})
    return Mamba2(
        Config(
            d_model=theirs.hidden_size,
            heads=theirs.num_heads,
            head_dim=theirs.head_dim,
            state=theirs.ssm_state_size,
            groups=theirs.n_groups,
            kernel=theirs.conv_kernel_size,
            conv_bias=theirs.use_conv_bias,
            proj_bias=theirs.use_bias,
            norm_eps=theirs.layer_norm_epsilon,
            dt_limit=tuple(theirs.time_step_limit),
        )
    )


FAMILY = Family(
    model_type="mamba2",
    architecture="Mamba2ForCausalLM",
    blocks="backbone.layers",
    releases=("5.23.0",),
    transplants=(
        Transplant(
            module="transformers.models.mamba2.modeling_mamba2",
            replaces="Mamba2Mixer",
            ours="Mamba2",
            slot="mixer",
            build=_build,
            call=("hidden_states", "cache_params", "attention_mask"),
            tensors={
                "in_proj.weight": "in_proj.weight",
                "in_proj.bias": "in_proj.bias",
                "conv_weight": "conv1d.weight",
                "conv_bias": "conv1d.bias",
                "A_log": "A_log",
                "D": "D",
                "dt_bias": "dt_bias",
                "norm_weight": "norm.weight",
                "out_proj.weight": "out_proj.weight",
                "out_proj.bias": "out_proj.bias",
            },
        ),
    ),
)
FAMILIES = (FAMILY,)
