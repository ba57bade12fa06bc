"""Mamba-2 (state-spaces/mamba2, Codestral Mamba) and the hybrids that hold it between layers of attention: Bamba
and Nemotron-H. `mamba2` takes the place of transformers' mixers, which differ in names only.
"""

from collections.abc import Callable
from typing import Any

from strobe.models.huggingface.experts import without_grouped_product
from strobe.models.huggingface.seam import Family, Transplant, require
from strobe.models.mixers.mamba2 import Config, Mamba2

_TENSORS = {
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
}


def _builder(model_type: str) -> Callable[[Any], Mamba2]:
    def build(theirs: Any) -> Mamba2:
        family = next(f for f in FAMILIES if f.model_type == model_type)
        require(family, {"hidden_act": (theirs.activation, "silu")})
        return Mamba2(
            Config(
                d_model=theirs.hidden_size,
                heads=theirs.num_heads,
                head_dim=theirs.head_dim,
                state=theirs.ssm_state_size,
                groups=theirs.n_groups,
                kernel=theirs.conv_kernel_size,
                conv_bias=theirs.conv1d.bias is not None,
                proj_bias=theirs.in_proj.bias is not None,
                norm_eps=theirs.norm.variance_epsilon,
                dt_limit=tuple(theirs.time_step_limit),
            )
        )

    return build


def _family(model_type: str, prefix: str, mixer: str, blocks: str, slot: str, **hybrid: Any) -> Family:
    return Family(
        model_type=model_type,
        architecture=f"{prefix}ForCausalLM",
        blocks=blocks,
        releases=("5.23.0",),
        transplants=(
            Transplant(
                module=f"transformers.models.{model_type}.modeling_{model_type}",
                replaces=f"{prefix}{mixer}",
                ours="Mamba2",
                slot=slot,
                build=_builder(model_type),
                call=("hidden_states", "cache_params", "attention_mask"),
                tensors=_TENSORS,
            ),
        ),
        **hybrid,
    )


_HYBRID: dict[str, Any] = {"attention": ("full_attention",), "masks_by_kind": True}
_EXPERTS: dict[str, Any] = {**_HYBRID, "prepare": without_grouped_product}
FAMILIES = (
    _family("mamba2", "Mamba2", "Mixer", "backbone.layers", "mixer"),
    _family("bamba", "Bamba", "Mixer", "model.layers", "mamba", **_HYBRID),
    _family("nemotron_h", "NemotronH", "Mamba2Mixer", "model.layers", "mixer", **_EXPERTS),
)
