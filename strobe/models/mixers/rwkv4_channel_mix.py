"""RWKV-4's channel mixing (Peng et al. 2023, arXiv:2305.13048, eqs. 17-19): a feed-forward layer with a token shift.

    lerp(mu, t) = mu * x_t + (1 - mu) * x_{t-1}
    r_t = sigmoid(W_r lerp(mu_r, t))            k_t = W_k lerp(mu_k, t)
    out_t = r_t * W_v max(k_t, 0)^2

Shape letters: B batch, T time, D d_model, F d_mlp.

Hooks, beside those of every mixer: ``hook_k`` [B,T,F] before the squared ReLU (``hook_read`` [B,T,F] is after it),
``hook_r`` [B,T,D] after the sigmoid. State: ``shift`` [B,1,D] is x_t, all that crosses from token t to t+1.

It has no recurrence, so that its scan is the identity: the shift makes it a carrier, and looks, edits and continuing
come from `Mixer` as for any other. A native RWKV-4 is layers "rwkv4", "rwkv4_channel_mix", ... with ``mlp="none"``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strobe.kernels.scan import Family, Segment
from strobe.models.mixer import Mixer, Streams
from strobe.models.windows import shifted


class NoMemory(NamedTuple):
    """The carry of a scan that carries nothing."""


class Values(NamedTuple):
    """What passes through."""

    x: Float[Tensor, "batch time channels"]


def _pass(signals: Values, carry: NoMemory, positions: list[int], readers: Tensor | None) -> Segment:
    if readers is not None:
        raise ValueError("a reader of rwkv4_channel_mix was asked for; it has no memory to read")
    return Segment(read=signals.x, carry=carry, captured=carry if positions else None, readers=None)


def _no_answer(carry: NoMemory, readers: Tensor) -> Tensor:
    raise ValueError("a reader of rwkv4_channel_mix was asked for; it has no memory to read")


IDENTITY = Family(
    name="identity",
    step=lambda signals, carry: (carry, signals.x),
    init_carry=lambda signals: NoMemory(),
    reader=_no_answer,
    hold=lambda signals, mask: signals,
    backends={"reference": _pass, "chunked": _pass, "triton": _pass},
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`d_mlp`: width of k (the released models: 4 d_model)."""

    d_model: int
    d_mlp: int


class Signals(NamedTuple):
    """What `project` computes for each token."""

    k: Float[Tensor, "batch time d_mlp"]
    r: Float[Tensor, "batch time d_model"]


class Carry(NamedTuple):
    """What crosses from one token to the next."""

    shift: Float[Tensor, "batch 1 d_model"]


class ChannelMix(Mixer):
    """RWKV-4's channel mixing; see the module's docstring."""

    family = IDENTITY
    Config, Signals, Carry, Memory, memory = Config, Signals, Carry, NoMemory, "shift"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        place = torch.arange(config.d_model) / config.d_model
        self.time_mix_key = nn.Parameter(place.clone())
        self.time_mix_receptance = nn.Parameter(place.clone())
        self.W_k = nn.Linear(config.d_model, config.d_mlp, bias=False)
        self.W_r = nn.Linear(config.d_model, config.d_model, bias=False)
        self.out_proj = nn.Linear(config.d_mlp, config.d_model, bias=False)

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> Carry:
        """Zeros."""
        return Carry(torch.zeros(batch, 1, self.config.d_model, dtype=dtype, device=device))

    def project(self, x: Tensor, carry: Carry, mask: Tensor | None) -> tuple[Signals, Streams]:
        """Token shift, then the two projections."""
        before = shifted(x, carry.shift, mask)
        k = self.W_k(x * self.time_mix_key + before * (1 - self.time_mix_key))
        r = self.W_r(x * self.time_mix_receptance + before * (1 - self.time_mix_receptance))
        return Signals(k=k, r=r.sigmoid()), {"shift": x}

    def inputs(self, signals: Signals) -> Values:
        """The squared ReLU."""
        return Values(signals.k.relu().square())

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """Output projection, receptance."""
        return signals.r * self.out_proj(read)
