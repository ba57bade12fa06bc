"""Qwen3-Next: `gated_deltanet` takes the place of transformers' Qwen3NextGatedDeltaNet.

Their two projections hold every quantity of one key head side by side, [q | k | v | z] and [b | a], head after head,
so q, k and v are not views of rows that a projection of ours could hold. The fused projections are kept as they are
and their outputs are sorted, which costs one copy of the activations and none of the weights.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strobe.models.huggingface.experts import without_grouped_product
from strobe.models.huggingface.seam import Family, Transplant, require
from strobe.models.mixer import Streams
from strobe.models.mixers.gated_deltanet import Carry, Config, GatedDeltaNet, Signals, unit
from strobe.models.windows import causal_conv


class InterleavedGatedDeltaNet(GatedDeltaNet):
    """Gated DeltaNet whose projections are fused and interleaved by key head, as Qwen3-Next stores them."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        for name in ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"):
            delattr(self, name)
        self.in_proj_qkvz = nn.Linear(config.d_model, 2 * self.key_dim + 2 * self.value_dim, bias=False)
        self.in_proj_ba = nn.Linear(config.d_model, 2 * config.heads, bias=False)

    def project(self, x: Tensor, carry: Carry, mask: Tensor | None) -> tuple[Signals, Streams]:
        """As `GatedDeltaNet.project`, from the fused projections."""
        c = self.config
        values = self.value_dim // self.key_heads
        by_head = self.in_proj_qkvz(x).unflatten(-1, (self.key_heads, -1))
        q, k, v, z = by_head.split([c.key, c.key, values, values], -1)
        b, a = (t.flatten(-2) for t in self.in_proj_ba(x).unflatten(-1, (self.key_heads, -1)).chunk(2, -1))
        stream = torch.cat([q.flatten(-2), k.flatten(-2), v.flatten(-2)], -1)
        conv = F.silu(causal_conv(stream, carry.conv, self.conv_weight, None, mask))
        q, k, v = conv.split([self.key_dim, self.key_dim, self.value_dim], -1)
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        signals = Signals(
            q=unit(q.unflatten(-1, (-1, c.key))) * c.key**-0.5,
            k=unit(k.unflatten(-1, (-1, c.key))),
            v=v.unflatten(-1, (c.heads, c.value)),
            z=z.flatten(-2).unflatten(-1, (c.heads, c.value)),
            beta=b.sigmoid(),
            decay=-self.A_log.to(wide).exp() * F.softplus(a.to(wide) + self.dt_bias.to(wide)),
        )
        return signals, {"conv": stream}


def _build(theirs: Any) -> InterleavedGatedDeltaNet:
    require(FAMILY, {"hidden_act": (theirs.activation, "silu")})
    return InterleavedGatedDeltaNet(
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
    model_type="qwen3_next",
    architecture="Qwen3NextForCausalLM",
    blocks="model.layers",
    releases=("5.23.0",),
    attention=("full_attention",),
    masks_by_kind=True,
    prepare=without_grouped_product,
    transplants=(
        Transplant(
            module="transformers.models.qwen3_next.modeling_qwen3_next",
            replaces="Qwen3NextGatedDeltaNet",
            ours="GatedDeltaNet",
            slot="linear_attn",
            build=_build,
            call=("hidden_states", "cache_params", "attention_mask"),
            tensors={
                "in_proj_qkvz.weight": "in_proj_qkvz.weight",
                "in_proj_ba.weight": "in_proj_ba.weight",
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
