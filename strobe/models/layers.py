"""Norms and feed-forward layers of native blocks."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from strobe.models.config import ModelConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm (Zhang & Sennrich 2019): x / rms(x) * weight, computed in float32 or wider.

    Hooks: ``hook_scale`` [batch, time, 1], the rms that x is divided by; ``hook_normalized`` [batch, time, d_model].
    """

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        wide = x if x.dtype == torch.float64 else x.float()
        scale = self.hook_scale((wide.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        return self.hook_normalized((wide / scale).to(x.dtype)) * self.weight


def make_norm(config: ModelConfig) -> nn.Module:
    """The norm that `config` asks for."""
    return RMSNorm(config.d_model, config.norm_eps) if config.norm == "rms" else nn.Identity()


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020) where `gated`, else GELU.

    Hooks: ``hook_pre`` and ``hook_post`` [batch, time, d_mlp], before and after the nonlinearity (and the gate).
    """

    def __init__(self, d_model: int, d_mlp: int, *, gated: bool) -> None:
        super().__init__()
        self.W_in = nn.Linear(d_model, d_mlp, bias=False)
        self.W_gate = nn.Linear(d_model, d_mlp, bias=False) if gated else None
        self.W_out = nn.Linear(d_mlp, d_model, bias=False)
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()

    def forward(self, x: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time d_model"]:
        pre = self.hook_pre(self.W_in(x))
        post = F.gelu(pre) if self.W_gate is None else F.silu(self.W_gate(x)) * pre
        return self.W_out(self.hook_post(post))
