"""Mamba-2: state space duality (Dao & Gu 2024, arXiv:2405.21060; the block of section 7, the recurrence of eq. 1).

    z, xBC, dt = in_proj(u)                 xBC = silu(conv4(xBC))          split into x, B, C
    dt_t  = softplus(dt_t + dt_bias)        log a_t = -exp(A_log) dt_t      one per head
    S_t   = a_t S_{t-1} + (dt_t B_t) x_t^T  y_t = S_t^T C_t + D x_t
    out   = out_proj(norm(y * silu(z)))     norm: RMS over each group

Shape letters: B batch, T time, H heads, P head_dim (the paper's P), G groups, N state (the paper's N), W kernel - 1.

Hooks, beside those of every mixer: ``hook_z`` [B,T,H*P], ``hook_x`` [B,T,H,P], ``hook_B`` and ``hook_C`` [B,T,G,N],
``hook_dt`` [B,T,H] after softplus, ``hook_decay`` [B,T,H] the log decay. State: ``S`` [B,H,N,P] is what crosses from
token t to t+1; ``conv`` [B,W,H*P+2GN] the convolution's window, before silu.

Departure from the paper, agreed with the released code and Hugging Face: the gate comes before the norm.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from strobe.kernels.decay import DECAY, DecayCarry, DecaySignals
from strobe.models.mixer import Mixer, Streams
from strobe.models.windows import causal_conv


@dataclass(frozen=True, kw_only=True)
class Config:
    """`dt_limit` clamps dt after softplus, as the released configurations do; (0, inf) is no clamp."""

    d_model: int
    heads: int
    head_dim: int
    state: int
    groups: int = 1
    kernel: int = 4
    conv_bias: bool = True
    proj_bias: bool = False
    norm_eps: float = 1e-5
    dt_limit: tuple[float, float] = (0.0, math.inf)


class Signals(NamedTuple):
    """What `project` computes for each token."""

    z: Float[Tensor, "batch time inner"]
    x: Float[Tensor, "batch time heads head_dim"]
    B: Float[Tensor, "batch time groups state"]
    C: Float[Tensor, "batch time groups state"]
    dt: Float[Tensor, "batch time heads"]
    decay: Float[Tensor, "batch time heads"]


class Carry(NamedTuple):
    """What crosses from one token to the next."""

    S: Float[Tensor, "batch heads state head_dim"]
    conv: Float[Tensor, "batch width channels"]


class Mamba2(Mixer):
    """The Mamba-2 mixer; see the module's docstring."""

    family = DECAY
    Config, Signals, Carry, Memory, memory = Config, Signals, Carry, DecayCarry, "S"
    ssm_aliases: ClassVar = {
        "hook_ssm_dt": "hook_dt",
        "hook_ssm_B": "hook_B",
        "hook_ssm_C": "hook_C",
        "hook_ssm_decay": "hook_decay",
    }

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.heads % config.groups:
            raise ValueError(f"mamba2: {config.heads} heads are not a multiple of {config.groups} groups")
        self.config = config
        self.inner = config.heads * config.head_dim
        self.channels = self.inner + 2 * config.groups * config.state
        self.in_proj = nn.Linear(config.d_model, self.inner + self.channels + config.heads, bias=config.proj_bias)
        self.conv_weight = nn.Parameter(torch.empty(self.channels, config.kernel))
        self.conv_bias = nn.Parameter(torch.zeros(self.channels)) if config.conv_bias else None
        nn.init.uniform_(self.conv_weight, -1 / math.sqrt(config.kernel), 1 / math.sqrt(config.kernel))
        self.A_log = nn.Parameter(torch.empty(config.heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(config.heads))
        self.dt_bias = nn.Parameter(_dt_bias(config.heads))
        self.norm_weight = nn.Parameter(torch.ones(self.inner))
        self.out_proj = nn.Linear(self.inner, config.d_model, bias=config.proj_bias)

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> Carry:
        """Zeros; the memory is float32 at least."""
        c = self.config
        return Carry(
            torch.zeros(
                batch, c.heads, c.state, c.head_dim, dtype=torch.promote_types(dtype, torch.float32), device=device
            ),
            torch.zeros(batch, c.kernel - 1, self.channels, dtype=dtype, device=device),
        )

    def project(self, x: Tensor, carry: Carry, mask: Tensor | None) -> tuple[Signals, Streams]:
        """in_proj, convolution, discretisation."""
        c = self.config
        z, stream, dt = self.in_proj(x).split([self.inner, self.channels, c.heads], -1)
        conv = F.silu(causal_conv(stream, carry.conv, self.conv_weight, self.conv_bias, mask))
        x_BTI, B, C = conv.split([self.inner, c.groups * c.state, c.groups * c.state], -1)
        dt = F.softplus(dt + self.dt_bias)
        if c.dt_limit != (0.0, math.inf):
            dt = dt.clamp(*c.dt_limit)
        signals = Signals(
            z=z,
            x=x_BTI.unflatten(-1, (c.heads, c.head_dim)),
            B=B.unflatten(-1, (c.groups, c.state)),
            C=C.unflatten(-1, (c.groups, c.state)),
            dt=dt,
            decay=-self.A_log.to(torch.promote_types(self.A_log.dtype, torch.float32)).exp() * dt,
        )
        return signals, {"conv": stream}

    def inputs(self, signals: Signals) -> DecaySignals:
        """As q = C, k = B, v = dt x: the write (dt B) x^T, with dt on the value so that k stays shared by a group."""
        return DecaySignals(q=signals.C, k=signals.B, v=signals.x * signals.dt[..., None], log_decay=signals.decay)

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """Skip, gate, group norm, output projection."""
        y = (read + self.D[:, None] * signals.x).flatten(-2)
        y = y * F.silu(signals.z.to(y.dtype))
        grouped = y.unflatten(-1, (self.config.groups, -1))
        grouped = grouped * torch.rsqrt(grouped.pow(2).mean(-1, keepdim=True) + self.config.norm_eps)
        return self.out_proj((grouped.flatten(-2) * self.norm_weight).to(signals.z.dtype))


def _dt_bias(heads: int) -> Tensor:
    """softplus^-1 of log-uniform(1e-3, 1e-1), as in the released code."""
    dt = torch.exp(torch.rand(heads) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
    return dt + torch.log(-torch.expm1(-dt))
