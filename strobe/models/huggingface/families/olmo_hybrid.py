"""OLMo Hybrid: `gated_deltanet` takes the place of transformers' OlmoHybridGatedDeltaNet.

Their q, k and v come from projections of their own, which are kept as they are, and beta may be doubled: eigenvalues of
the transition then reach down to -1 (Grazzini et al. 2024, arXiv:2411.12537).
"""

from typing import Any

import torch
from torch import Tensor, nn

from strobe.models.huggingface.seam import Family, Transplant, require
from strobe.models.mixer import Streams
from strobe.models.mixers.gated_deltanet import Carry, Config, GatedDeltaNet, Signals


class _SideBySide(nn.Module):
    """Three linear maps of one vector, side by side: what `GatedDeltaNet` calls ``in_proj_qkv``."""

    def __init__(self, d_model: int, key: int, value: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(d_model, n, bias=False) for n in (key, key, value))

    def forward(self, x: Tensor) -> Tensor:
        """[..., 2 key + value]: q, k and v."""
        return torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], -1)


class SeparateGatedDeltaNet(GatedDeltaNet):
    """Gated DeltaNet with three projections in the place of one, and beta in (0, `most`)."""

    def __init__(self, config: Config, most: float) -> None:
        super().__init__(config)
        self.most = most
        self.in_proj_qkv: Any = _SideBySide(config.d_model, self.key_dim, self.value_dim)

    def project(self, x: Tensor, carry: Carry, mask: Tensor | None) -> tuple[Signals, Streams]:
        """As `GatedDeltaNet.project`, beta times `most`."""
        signals, streams = super().project(x, carry, mask)
        return signals._replace(beta=self.most * signals.beta), streams


def _build(theirs: Any) -> SeparateGatedDeltaNet:
    require(FAMILY, {"hidden_act": (theirs.activation, "silu")})
    config = Config(
        d_model=theirs.hidden_size,
        heads=theirs.num_v_heads,
        key_heads=theirs.num_k_heads,
        key=theirs.head_k_dim,
        value=theirs.head_v_dim,
        kernel=theirs.conv_kernel_size,
        norm_eps=theirs.o_norm.variance_epsilon,
    )
    return SeparateGatedDeltaNet(config, 2.0 if theirs.allow_neg_eigval else 1.0)


def _overlay(components: dict[str, Any], config: Any) -> None:
    """TransformerLens's block says that what attention adds comes out of ``linear_attn``; with us that is ``mixer``."""
    block = components["blocks"]
    kind: Any = type(block)

    class Block(kind):
        def set_original_component(self, original_component: nn.Module) -> None:
            super().set_original_component(original_component)
            if self.hook_aliases.get("hook_attn_out") == "linear_attn.hook_out":
                self.hook_aliases = {**self.hook_aliases, "hook_attn_out": "mixer.hook_out"}

    block.__class__ = Block


FAMILY = Family(
    model_type="olmo_hybrid",
    architecture="OlmoHybridForCausalLM",
    blocks="model.layers",
    releases=("5.23.0",),
    attention=("full_attention",),
    masks_by_kind=True,
    overlay=_overlay,
    transplants=(
        Transplant(
            module="transformers.models.olmo_hybrid.modeling_olmo_hybrid",
            replaces="OlmoHybridGatedDeltaNet",
            ours="GatedDeltaNet",
            slot="linear_attn",
            build=_build,
            call=("hidden_states", "cache_params", "attention_mask"),
            tensors={
                "in_proj_qkv.q_proj.weight": "q_proj.weight",
                "in_proj_qkv.k_proj.weight": "k_proj.weight",
                "in_proj_qkv.v_proj.weight": "v_proj.weight",
                "in_proj_z.weight": "g_proj.weight",
                "in_proj_b.weight": "b_proj.weight",
                "in_proj_a.weight": "a_proj.weight",
                "conv_weight": "conv1d.weight",
                "A_log": "A_log",
                "dt_bias": "dt_bias",
                "norm_weight": "o_norm.weight",
                "out_proj.weight": "o_proj.weight",
            },
        ),
    ),
)
FAMILIES = (FAMILY,)
