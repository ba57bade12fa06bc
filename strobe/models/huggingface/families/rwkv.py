"""RWKV-4: `rwkv4` and `rwkv4_channel_mix` take the places of transformers' RwkvSelfAttention and RwkvFeedForward.

In evaluation, transformers divides the output weights of layer i by 2^(i // rescale_every) in place and halves the
residual stream every `rescale_every` layers: a guard for float16 that leaves the logits as they are (but for the
epsilon of the last norm) and changes every number on the way, the weights included. It is switched off (rescale_every
= 0) before the first pass, so that the activations are those of the checkpoint's weights. float16 needs that guard,
so it is refused.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from strobe.core.errors import SeamError
from strobe.models.huggingface.seam import Family, Transplant
from strobe.models.mixers.rwkv4 import RWKV4
from strobe.models.mixers.rwkv4 import Config as TimeConfig
from strobe.models.mixers.rwkv4_channel_mix import ChannelMix
from strobe.models.mixers.rwkv4_channel_mix import Config as ChannelConfig


def _time_mix(theirs: Any) -> RWKV4:
    return RWKV4(TimeConfig(d_model=theirs.key.in_features, hidden=theirs.attention_hidden_size))


def _channel_mix(theirs: Any) -> ChannelMix:
    return ChannelMix(ChannelConfig(d_model=theirs.key.in_features, d_mlp=theirs.key.out_features))


def _reply(out: Tensor, arguments: Mapping[str, Any]) -> tuple[Tensor, Any]:
    """The block unpacks the output and the state that it passed in."""
    return out, arguments.get("state")


def _prepare(model: Any) -> None:
    if model.rwkv.layers_are_rescaled:
        raise SeamError(
            "this RWKV model has already run in evaluation mode, so transformers has divided its weights by powers of "
            "two (rescale_every); load it again from its checkpoint"
        )
    if next(model.parameters()).dtype == torch.float16:
        raise SeamError("RWKV-4 overflows in float16 without transformers' rescaling; load it in float32 or bfloat16")
    model.config.rescale_every = 0


_MODULE = "transformers.models.rwkv.modeling_rwkv"
_SHARED = {
    "time_mix_key": "time_mix_key",
    "time_mix_receptance": "time_mix_receptance",
    "W_k.weight": "key.weight",
    "W_r.weight": "receptance.weight",
}

FAMILY = Family(
    model_type="rwkv",
    architecture="RwkvForCausalLM",
    blocks="rwkv.blocks",
    releases=("5.23.0",),
    prepare=_prepare,
    transplants=(
        Transplant(
            module=_MODULE,
            replaces="RwkvSelfAttention",
            ours="RWKV4",
            slot="attention",
            build=_time_mix,
            call=("hidden", "state", "use_cache"),
            reply=_reply,
            tensors={
                **_SHARED,
                "time_mix_value": "time_mix_value",
                "time_decay": "time_decay",
                "time_first": "time_first",
                "W_v.weight": "value.weight",
                "out_proj.weight": "output.weight",
            },
        ),
        Transplant(
            module=_MODULE,
            replaces="RwkvFeedForward",
            ours="ChannelMix",
            slot="feed_forward",
            name="channel_mix",
            build=_channel_mix,
            call=("hidden", "state"),
            reply=_reply,
            tensors={**_SHARED, "out_proj.weight": "value.weight"},
        ),
    ),
)
FAMILIES = (FAMILY,)
