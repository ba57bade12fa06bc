"""RWKV-4 (Peng et al. 2023, arXiv:2305.13048), time mixing (eqs. 11-16).

    lerp(mu, t) = mu * x_t + (1 - mu) * x_{t-1}                              token shift
    r_t = sigmoid(W_r lerp(mu_r, t))     k_t = W_k lerp(mu_k, t)     v_t = W_v lerp(mu_v, t)
    wkv_t = (num_{t-1} + e^{u + k_t} v_t) / (den_{t-1} + e^{u + k_t})        w = -exp(time_decay), u = time_first
    num_t = e^w num_{t-1} + e^{k_t} v_t         den_t = e^w den_{t-1} + e^{k_t}
    out_t = out_proj(r_t * wkv_t)

num and den are kept divided by e^max, `max` being the largest exponent so far.

Shape letters: B batch, T time, D d_model, H hidden.

Hooks, beside those of every mixer: ``hook_k``, ``hook_v``, ``hook_r`` [B,T,H], r after the sigmoid. State:
``num``, ``den`` and ``max`` [B,H] cross from token t to t+1 (``hook_state`` shows num); ``shift`` [B,1,D] is x_t.

Channel mixing (eqs. 17-19), a feed-forward layer with its own token shift, is `rwkv4_channel_mix`.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strobe.kernels.wkv import WKV, WKVCarry, WKVSignals
from strobe.models.mixer import Mixer, Streams
from strobe.models.windows import shifted

# log 0, near enough in float32 and without infinities: what `max` holds before the first token.
_NOTHING = -1e38


@dataclass(frozen=True, kw_only=True)
class Config:
    """`hidden`: width of k, v and r (the released models: d_model)."""

    d_model: int
    hidden: int


class Signals(NamedTuple):
    """What `project` computes for each token."""

    k: Float[Tensor, "batch time hidden"]
    v: Float[Tensor, "batch time hidden"]
    r: Float[Tensor, "batch time hidden"]


class Carry(NamedTuple):
    """What crosses from one token to the next."""

    num: Float[Tensor, "batch hidden"]
    den: Float[Tensor, "batch hidden"]
    max: Float[Tensor, "batch hidden"]
    shift: Float[Tensor, "batch 1 d_model"]


class RWKV4(Mixer):
    """RWKV-4's time mixing; see the module's docstring."""

    family = WKV
    Config, Signals, Carry, Memory, memory = Config, Signals, Carry, WKVCarry, "num"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        place = torch.arange(config.d_model) / config.d_model
        self.time_mix_key = nn.Parameter(place.clone())
        self.time_mix_value = nn.Parameter(place.clone())
        self.time_mix_receptance = nn.Parameter(place.sqrt())
        channel = torch.arange(config.hidden) / max(config.hidden - 1, 1)
        self.time_decay = nn.Parameter(-5 + 8 * channel**0.7)
        self.time_first = nn.Parameter(torch.ones(config.hidden))
        self.W_k = nn.Linear(config.d_model, config.hidden, bias=False)
        self.W_v = nn.Linear(config.d_model, config.hidden, bias=False)
        self.W_r = nn.Linear(config.d_model, config.hidden, bias=False)
        self.out_proj = nn.Linear(config.hidden, config.d_model, bias=False)

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> Carry:
        """Nothing read yet: num = den = 0, max = -1e38, in float32 at least."""
        wide = torch.promote_types(dtype, torch.float32)
        zeros = torch.zeros(batch, self.config.hidden, dtype=wide, device=device)
        shift = torch.zeros(batch, 1, self.config.d_model, dtype=dtype, device=device)
        return Carry(zeros, zeros.clone(), torch.full_like(zeros, _NOTHING), shift)

    def project(self, x: Tensor, carry: Carry, mask: Tensor | None) -> tuple[Signals, Streams]:
        """Token shift, then the three projections."""
        before = shifted(x, carry.shift, mask)
        signals = Signals(
            k=self.W_k(lerp(self.time_mix_key, x, before)),
            v=self.W_v(lerp(self.time_mix_value, x, before)),
            r=self.W_r(lerp(self.time_mix_receptance, x, before)).sigmoid(),
        )
        return signals, {"shift": x}

    def inputs(self, signals: Signals) -> WKVSignals:
        """The family's signals; w and u are the same for every token."""
        wide = torch.promote_types(self.time_decay.dtype, torch.float32)
        return WKVSignals(k=signals.k, v=signals.v, w=-self.time_decay.to(wide).exp(), u=self.time_first.to(wide))

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """Receptance, output projection."""
        return self.out_proj(signals.r * read.to(signals.r.dtype))


def lerp(mu: Tensor, x: Tensor, before: Tensor) -> Tensor:
    """The token shift: mu * x + (1 - mu) * before."""
    return x * mu + before * (1 - mu)
