"""RecurrentGemma (Griffin): `rglru` takes the place of transformers' RecurrentGemmaRecurrentBlock.

Their block keeps its state in attributes of the module, shared by every call; ours keeps it in the run, so nothing
leaks from one call to the next. TransformerLens bridges a layer of this model as a whole, so its inner hook points
are added here.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from strobe.models.huggingface.seam import Family, Transplant, require
from strobe.models.mixers.rglru import RGLRU, Config


def _build(theirs: Any) -> RGLRU:
    config = theirs.rg_lru
    require(FAMILY, {"hidden_activation": (type(theirs.act_fn).__name__, "GELUTanh")})
    return RGLRU(
        Config(
            d_model=theirs.hidden_size,
            inner=theirs.lru_width,
            heads=config.num_attention_heads,
            kernel=theirs.conv1d_width,
            bias=theirs.linear_x.bias is not None,
        )
    )


def _reply(out: Tensor, arguments: Mapping[str, Any]) -> tuple[Tensor, None]:
    """The block unpacks two: the output and no attention weights."""
    return out, None


def _overlay(components: dict[str, Any], config: Any) -> None:
    from transformer_lens.model_bridge.generalized_components import RMSNormalizationBridge
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

    block = components["blocks"]
    block.submodules["ln1"] = RMSNormalizationBridge(name="temporal_pre_norm", config=config)
    block.submodules["ln2"] = RMSNormalizationBridge(name="channel_pre_norm", config=config)
    block.submodules["mlp"] = GeneralizedComponent(name="mlp_block")
    block.hook_aliases = {**block.hook_aliases, "hook_resid_mid": "ln2.hook_in", "hook_mlp_out": "mlp.hook_out"}


FAMILY = Family(
    model_type="recurrent_gemma",
    architecture="RecurrentGemmaForCausalLM",
    blocks="model.layers",
    releases=("5.23.0",),
    attention=("sliding_attention",),
    masks_by_kind=True,
    overlay=_overlay,
    transplants=(
        Transplant(
            module="transformers.models.recurrent_gemma.modeling_recurrent_gemma",
            replaces="RecurrentGemmaRecurrentBlock",
            ours="RGLRU",
            slot="temporal_block",
            build=_build,
            call=("input_states", "position_ids", "attention_mask", "use_cache"),
            reply=_reply,
            tensors={
                "linear_y.weight": "linear_y.weight",
                "linear_y.bias": "linear_y.bias",
                "linear_x.weight": "linear_x.weight",
                "linear_x.bias": "linear_x.bias",
                "conv_weight": "conv_1d.weight",
                "conv_bias": "conv_1d.bias",
                "input_gate_weight": "rg_lru.input_gate_weight",
                "input_gate_bias": "rg_lru.input_gate_bias",
                "recurrent_gate_weight": "rg_lru.recurrent_gate_weight",
                "recurrent_gate_bias": "rg_lru.recurrent_gate_bias",
                "recurrent_param": "rg_lru.recurrent_param",
                "out_proj.weight": "linear_out.weight",
                "out_proj.bias": "linear_out.bias",
            },
        ),
    ),
)
FAMILIES = (FAMILY,)
