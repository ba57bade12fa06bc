"""RG-LRU, the real-gated linear recurrent unit of Griffin (De et al. 2024, arXiv:2402.19427, eqs. 1-4; the recurrent
block of figure 2c), as released in RecurrentGemma (Botev et al. 2024, arXiv:2404.07839).

    x = conv4(linear_x(u))                  z = linear_y(u)
    r_t = sigmoid(W_a x_t + b_a)            i_t = sigmoid(W_x x_t + b_x)            W block-diagonal, one block a head
    log a_t = -8 r_t softplus(Lambda)       m_t = sqrt(1 - a_t^2)
    h_t = a_t * h_{t-1} + m_t * i_t * x_t   out = out_proj(h * gelu(z))

At the first token of a sequence a_t = 0 and m_t = 1: the released models write it at full strength and keep nothing.

Shape letters: B batch, T time, I inner (the released lru_width), W kernel - 1. H heads, of width K = I/H.

Hooks, beside those of every mixer: ``hook_z`` [B,T,I] before gelu, ``hook_x`` [B,T,I] after the convolution, ``hook_r``
and ``hook_i`` [B,T,I] the gates, ``hook_decay`` [B,T,I] log a_t and ``hook_m`` [B,T,I] the multiplier m_t, both
before the rule for the first token, ``hook_started`` [B,T,1] 0 at the first token of a sequence, else 1 (a 0 put
elsewhere starts a new sequence there). State: ``h`` [B,I] is what crosses from token t to t+1; ``conv`` [B,W,I] the
convolution's window; ``started`` [B,1,1] is 0 until the row's first real token and 1 after it.

`started` makes the rule for the first token right when a sequence is continued or padded. A carry made by hand with
h other than 0 needs started = 1, or the next token counts as the first one and forgets it.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from strobe.kernels.diagonal import DIAGONAL, DiagonalCarry, DiagonalSignals
from strobe.models.mixer import Mixer, Streams
from strobe.models.windows import causal_conv, shifted

# c of eq. 3, and the largest gradient of the square root that the released code lets through.
_C = 8.0
_MAX_SQRT_GRADIENT = 1000.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """`inner`: width of h, a multiple of `heads`. `bias`: whether the three linear maps have one."""

    d_model: int
    inner: int
    heads: int
    kernel: int = 4
    bias: bool = True


class Signals(NamedTuple):
    """What `project` computes for each token."""

    z: Float[Tensor, "batch time inner"]
    x: Float[Tensor, "batch time inner"]
    r: Float[Tensor, "batch time inner"]
    i: Float[Tensor, "batch time inner"]
    decay: Float[Tensor, "batch time inner"]
    m: Float[Tensor, "batch time inner"]
    started: Float[Tensor, "batch time 1"]


class Carry(NamedTuple):
    """What crosses from one token to the next."""

    h: Float[Tensor, "batch inner"]
    conv: Float[Tensor, "batch width inner"]
    started: Float[Tensor, "batch 1 1"]


class RGLRU(Mixer):
    """The recurrent block of Griffin; see the module's docstring."""

    family = DIAGONAL
    Config, Signals, Carry, Memory, memory = Config, Signals, Carry, DiagonalCarry, "h"

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.inner % config.heads:
            raise ValueError(f"rglru: inner {config.inner} is not a multiple of {config.heads} heads")
        self.config = config
        width = config.inner // config.heads
        self.linear_y = nn.Linear(config.d_model, config.inner, bias=config.bias)
        self.linear_x = nn.Linear(config.d_model, config.inner, bias=config.bias)
        self.conv_weight = nn.Parameter(torch.empty(config.inner, config.kernel).normal_(std=config.kernel**-0.5))
        self.conv_bias = nn.Parameter(torch.zeros(config.inner))
        self.input_gate_weight = nn.Parameter(torch.empty(config.heads, width, width).normal_(std=width**-0.5))
        self.input_gate_bias = nn.Parameter(torch.zeros(config.heads, width))
        self.recurrent_gate_weight = nn.Parameter(torch.empty(config.heads, width, width).normal_(std=width**-0.5))
        self.recurrent_gate_bias = nn.Parameter(torch.zeros(config.heads, width))
        self.recurrent_param = nn.Parameter(_init_lambda(config.inner))
        self.out_proj = nn.Linear(config.inner, config.d_model, bias=config.bias)

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> Carry:
        """Zeros, not started; h is float32 at least, as in the released models."""
        c = self.config
        wide = torch.promote_types(dtype, torch.float32)
        return Carry(
            torch.zeros(batch, c.inner, dtype=wide, device=device),
            torch.zeros(batch, c.kernel - 1, c.inner, dtype=dtype, device=device),
            torch.zeros(batch, 1, 1, dtype=dtype, device=device),
        )

    def project(self, x: Tensor, carry: Carry, mask: Tensor | None) -> tuple[Signals, Streams]:
        """Projections, convolution, gates, decay and multiplier."""
        stream = self.linear_x(x)
        ones = torch.ones_like(x[..., :1])
        conv = causal_conv(stream, carry.conv, self.conv_weight, self.conv_bias, mask)
        r = self._gate(conv, self.recurrent_gate_weight, self.recurrent_gate_bias)
        wide = torch.promote_types(self.recurrent_param.dtype, torch.float32)
        decay = r.to(wide) * (-_C * F.softplus(self.recurrent_param.to(wide)))
        signals = Signals(
            z=self.linear_y(x),
            x=conv,
            r=r,
            i=self._gate(conv, self.input_gate_weight, self.input_gate_bias),
            decay=decay,
            m=_Multiplier.apply(decay),
            started=shifted(ones, carry.started, mask),
        )
        return signals, {"conv": stream, "started": ones}

    def inputs(self, signals: Signals) -> DiagonalSignals:
        """The family's a and b, with the rule for the first token."""
        # 1 or 0 a token: products with them are exact, and on a CPU four times as fast as `where` along channels.
        later = (signals.started != 0).to(signals.decay.dtype)
        m = (signals.m * later).add_(1 - later)
        return DiagonalSignals(a=signals.decay.exp() * later, b=m * (signals.i * signals.x))

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """Gate, output projection."""
        return self.out_proj(read.to(signals.z.dtype) * F.gelu(signals.z, approximate="tanh"))

    def _gate(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        heads = x.flatten(0, 1).unflatten(-1, (self.config.heads, -1)).transpose(0, 1)  # [H, B T, K]
        gate = torch.baddbmm(bias.unsqueeze(1), heads, weight)
        return gate.transpose(0, 1).reshape(x.shape).sigmoid()


class _Multiplier(torch.autograd.Function):
    """m = sqrt(1 - a^2) of log a, in one tensor of its own. The gradient of the square root is at most
    `_MAX_SQRT_GRADIENT`: at a = 1 the true one is infinite."""

    @staticmethod
    def forward(ctx: Any, log_a: Tensor) -> Tensor:
        m = (2 * log_a).expm1_().neg_().sqrt_()
        ctx.save_for_backward(log_a, m)
        return m

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> Tensor:
        log_a, m = ctx.saved_tensors
        d_square = grad[0] / (2 * m).clamp_min(1 / _MAX_SQRT_GRADIENT)
        return d_square * -2 * (2 * log_a).exp()


def _init_lambda(channels: int) -> Tensor:
    """Lambda such that exp(-softplus(Lambda)) is uniform in area on the ring from 0.9 to 0.999, as released."""
    log_radius = torch.empty(channels).uniform_(0.9**2 + 1e-8, 0.999**2 + 1e-8).log() / 2
    return torch.expm1(-log_radius).log()
