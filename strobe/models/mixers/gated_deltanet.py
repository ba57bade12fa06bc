"""Gated DeltaNet (Yang, Kautz & Hatamizadeh 2024, arXiv:2412.06464, eq. 10), the block as in Qwen3-Next.

    q, k, v = silu(conv4(W x))                       q = q/|q|/sqrt(K), k = k/|k|
    log a_t = -exp(A_log) softplus(W_a x_t + dt_bias)        beta_t = sigmoid(W_b x_t)
    S_t = a_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T          y_t = S_t^T q_t
    out = out_proj(rmsnorm(y) * silu(z))             norm over each head's value

Shape letters: B batch, T time, G key heads, H value heads (a multiple of G), K key, V value, W kernel - 1.

Hooks, beside those of every mixer: ``hook_q``, ``hook_k`` [B,T,G,K] normalised, ``hook_v`` [B,T,H,V], ``hook_z``
[B,T,H,V], ``hook_beta`` [B,T,H], ``hook_decay`` [B,T,H] the log decay. State: ``S`` [B,H,K,V] crosses from token t to
t+1; ``conv`` [B,W,2GK+HV] the convolution's window.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from strobe.kernels.delta import DELTA, DeltaCarry, DeltaSignals
from strobe.models.mixer import Mixer, Streams
from strobe.models.windows import causal_conv


@dataclass(frozen=True, kw_only=True)
class Config:
    """`heads` value heads, `key_heads` key heads (default: as many)."""

    d_model: int
    heads: int
    key: int
    value: int
    key_heads: int | None = None
    kernel: int = 4
    norm_eps: float = 1e-6


class Signals(NamedTuple):
    """What `project` computes for each token."""

    q: Float[Tensor, "batch time key_heads key"]
    k: Float[Tensor, "batch time key_heads key"]
    v: Float[Tensor, "batch time heads value"]
    z: Float[Tensor, "batch time heads value"]
    beta: Float[Tensor, "batch time heads"]
    decay: Float[Tensor, "batch time heads"]


class Carry(NamedTuple):
    """What crosses from one token to the next."""

    S: Float[Tensor, "batch heads key value"]
    conv: Float[Tensor, "batch width channels"]


class GatedDeltaNet(Mixer):
    """The gated delta rule mixer; see the module's docstring."""

    family = DELTA
    Config, Signals, Carry, Memory, memory = Config, Signals, Carry, DeltaCarry, "S"
    ssm_aliases: ClassVar = {"hook_ssm_decay": "hook_decay"}

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.key_heads = config.key_heads or config.heads
        if config.heads % self.key_heads:
            raise ValueError(f"gated_deltanet: {config.heads} heads are not a multiple of {self.key_heads} key heads")
        self.key_dim, self.value_dim = self.key_heads * config.key, config.heads * config.value
        self.channels = 2 * self.key_dim + self.value_dim
        self.in_proj_qkv = nn.Linear(config.d_model, self.channels, bias=False)
        self.in_proj_z = nn.Linear(config.d_model, self.value_dim, bias=False)
        self.in_proj_b = nn.Linear(config.d_model, config.heads, bias=False)
        self.in_proj_a = nn.Linear(config.d_model, config.heads, bias=False)
        self.conv_weight = nn.Parameter(torch.empty(self.channels, config.kernel))
        nn.init.uniform_(self.conv_weight, -1 / math.sqrt(config.kernel), 1 / math.sqrt(config.kernel))
        self.A_log = nn.Parameter(torch.empty(config.heads).uniform_(0.01, 16).log())
        self.dt_bias = nn.Parameter(_dt_bias(config.heads))
        self.norm_weight = nn.Parameter(torch.ones(config.value))
        self.out_proj = nn.Linear(self.value_dim, config.d_model, bias=False)

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> Carry:
        """Zeros; the memory is float32 at least."""
        c = self.config
        return Carry(
            torch.zeros(batch, c.heads, c.key, c.value, dtype=torch.promote_types(dtype, torch.float32), device=device),
            torch.zeros(batch, c.kernel - 1, self.channels, dtype=dtype, device=device),
        )

    def project(self, x: Tensor, carry: Carry, mask: Tensor | None) -> tuple[Signals, Streams]:
        """Projections, convolution, unit keys and queries, gates."""
        c = self.config
        stream = self.in_proj_qkv(x)
        conv = F.silu(causal_conv(stream, carry.conv, self.conv_weight, None, mask))
        q, k, v = conv.split([self.key_dim, self.key_dim, self.value_dim], -1)
        wide = torch.promote_types(self.A_log.dtype, torch.float32)
        gate = F.softplus(self.in_proj_a(x).to(wide) + self.dt_bias.to(wide))
        signals = Signals(
            q=unit(q.unflatten(-1, (-1, c.key))) * c.key**-0.5,
            k=unit(k.unflatten(-1, (-1, c.key))),
            v=v.unflatten(-1, (c.heads, c.value)),
            z=self.in_proj_z(x).unflatten(-1, (c.heads, c.value)),
            beta=self.in_proj_b(x).sigmoid(),
            decay=-self.A_log.to(wide).exp() * gate,
        )
        return signals, {"conv": stream}

    def inputs(self, signals: Signals) -> DeltaSignals:
        """The family's delta rule: b = k, and beta on the write; a = None stands for minus the write."""
        k = signals.k.repeat_interleave(self.config.heads // self.key_heads, -2)
        write = signals.beta[..., None] * k
        return DeltaSignals(q=signals.q, k=write, v=signals.v, log_decay=signals.decay, a=None, b=signals.k)

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """RMS norm of each head, gate, output projection."""
        y = read * torch.rsqrt(read.pow(2).mean(-1, keepdim=True) + self.config.norm_eps)
        y = (self.norm_weight * y) * F.silu(signals.z.to(y.dtype))
        return self.out_proj(y.flatten(-2).to(signals.z.dtype))


def _dt_bias(heads: int) -> Tensor:
    """Inverse softplus of log-uniform(1e-3, 1e-1), Mamba-2's start, which is our choice here.

    With Hugging Face's ones the log decay begins at about -1.3 A, A uniform in (0.01, 16): most heads start with a
    memory that a single token empties.
    """
    dt = torch.exp(torch.rand(heads) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
    return dt + torch.log(-torch.expm1(-dt))


def unit(x: Tensor, eps: float = 1e-6) -> Tensor:
    """Scale to unit length, x / sqrt(|x|^2 + eps), over the last axis, the form that Qwen3-Next uses."""
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + eps)
