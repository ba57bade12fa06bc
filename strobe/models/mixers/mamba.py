"""Mamba (Gu & Dao 2023, arXiv:2312.00752; the block of figure 3, the selective scan of algorithm 2).

    x, z = in_proj(u)                       x = silu(conv4(x))
    r, B, C = x_proj(x)                     delta_t = softplus(dt_proj(r_t))        A = -exp(A_log)
    h_t = exp(delta_t A) * h_{t-1} + (delta_t x_t) B_t^T          y_t = h_t C_t + D x_t
    out = out_proj(y * silu(z))

Shape letters: B batch, T time, I inner (the paper's ED), N state, R rank of delta, W kernel - 1.

Hooks, beside those of every mixer: ``hook_z`` [B,T,I] the gate before silu, ``hook_x`` [B,T,I] after the convolution
and silu, ``hook_delta`` [B,T,I] after softplus, ``hook_B`` and ``hook_C`` [B,T,N]. State: ``h`` [B,I,N] is what crosses
from token t to t+1; ``conv`` [B,W,I] the convolution's window, before silu.

Departures from the paper, in the released models: FalconMamba (Zuo et al. 2024) divides r, B and C by their root mean
square (`norm_eps`), and Jamba (Lieber et al. 2024) also gives that norm weights (`norm_weights`).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from strobe.kernels.selective import SELECTIVE, SelectiveCarry, SelectiveSignals
from strobe.models.mixer import Mixer, Streams
from strobe.models.windows import causal_conv


@dataclass(frozen=True, kw_only=True)
class Config:
    """`rank` of delta (the paper: d_model / 16, rounded up). `norm_eps`: RMS norm of r, B and C; None is no norm."""

    d_model: int
    inner: int
    state: int
    rank: int
    kernel: int = 4
    conv_bias: bool = True
    proj_bias: bool = False
    norm_eps: float | None = None
    norm_weights: bool = False


class Signals(NamedTuple):
    """What `project` computes for each token."""

    z: Float[Tensor, "batch time inner"]
    x: Float[Tensor, "batch time inner"]
    delta: Float[Tensor, "batch time inner"]
    B: Float[Tensor, "batch time state"]
    C: Float[Tensor, "batch time state"]


class Carry(NamedTuple):
    """What crosses from one token to the next."""

    h: Float[Tensor, "batch inner state"]
    conv: Float[Tensor, "batch width inner"]


class Mamba(Mixer):
    """The Mamba mixer; see the module's docstring."""

    family = SELECTIVE
    Config, Signals, Carry, Memory, memory = Config, Signals, Carry, SelectiveCarry, "h"

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.norm_weights and config.norm_eps is None:
            raise ValueError("mamba: norm_weights is on, but norm_eps is None, which is no norm; give norm_eps")
        self.config = config
        self.in_proj = nn.Linear(config.d_model, 2 * config.inner, bias=config.proj_bias)
        self.conv_weight = nn.Parameter(torch.empty(config.inner, config.kernel))
        self.conv_bias = nn.Parameter(torch.zeros(config.inner)) if config.conv_bias else None
        nn.init.uniform_(self.conv_weight, -1 / math.sqrt(config.kernel), 1 / math.sqrt(config.kernel))
        self.x_proj = nn.Linear(config.inner, config.rank + 2 * config.state, bias=False)
        self.dt_proj = nn.Linear(config.rank, config.inner)
        nn.init.uniform_(self.dt_proj.weight, -(config.rank**-0.5), config.rank**-0.5)
        self.dt_proj.bias = nn.Parameter(_dt_bias(config.inner))
        self.A_log = nn.Parameter(torch.arange(1.0, config.state + 1).log().repeat(config.inner, 1))
        self.D = nn.Parameter(torch.ones(config.inner))
        self.out_proj = nn.Linear(config.inner, config.d_model, bias=config.proj_bias)
        weighted = config.norm_weights
        self.dt_norm_weight = nn.Parameter(torch.ones(config.rank)) if weighted else None
        self.B_norm_weight = nn.Parameter(torch.ones(config.state)) if weighted else None
        self.C_norm_weight = nn.Parameter(torch.ones(config.state)) if weighted else None

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> Carry:
        """Zeros; h is float32 at least."""
        c = self.config
        wide = torch.promote_types(dtype, torch.float32)
        return Carry(
            torch.zeros(batch, c.inner, c.state, dtype=wide, device=device),
            torch.zeros(batch, c.kernel - 1, c.inner, dtype=dtype, device=device),
        )

    def project(self, x: Tensor, carry: Carry, mask: Tensor | None) -> tuple[Signals, Streams]:
        """in_proj, convolution, and what selects: delta, B and C."""
        c = self.config
        stream, z = self.in_proj(x).chunk(2, -1)
        conv = F.silu(causal_conv(stream, carry.conv, self.conv_weight, self.conv_bias, mask))
        r, B, C = self.x_proj(conv).split([c.rank, c.state, c.state], -1)
        wide = torch.promote_types(self.dt_proj.bias.dtype, torch.float32)
        delta = F.linear(self._normed(r, self.dt_norm_weight), self.dt_proj.weight).to(wide) + self.dt_proj.bias.to(
            wide
        )
        signals = Signals(
            z=z,
            x=conv,
            delta=F.softplus(delta),
            B=self._normed(B, self.B_norm_weight),
            C=self._normed(C, self.C_norm_weight),
        )
        return signals, {"conv": stream}

    def inputs(self, signals: Signals) -> SelectiveSignals:
        """The family's signals; A is the same for every token."""
        A = -self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp()
        return SelectiveSignals(x=signals.x, delta=signals.delta, B=signals.B, C=signals.C, A=A)

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """Skip, gate, output projection."""
        y = torch.addcmul(read, self.D, signals.x)
        return self.out_proj((y * F.silu(signals.z.to(y.dtype))).to(signals.z.dtype))

    def _normed(self, x: Tensor, weight: Tensor | None) -> Tensor:
        if self.config.norm_eps is None:
            return x
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        normed = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.config.norm_eps)).to(x.dtype)
        return normed if weight is None else normed * weight


def _dt_bias(channels: int) -> Tensor:
    """softplus^-1 of log-uniform(1e-3, 1e-1), as in the released code."""
    dt = torch.exp(torch.rand(channels) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)).clamp_min(1e-4)
    return dt + torch.log(-torch.expm1(-dt))
