"""minGRU (Feng et al. 2024, "Were RNNs all we needed?", arXiv:2410.01201, section 3.1; g of appendix B).

    z_t = sigmoid(W_z x_t + b_z)                      the gates no longer see h_{t-1}
    v_t = g(W_h x_t + b_h)                            g(u) = u + 1/2 for u >= 0, sigmoid(u) below: positive, continuous
    h_t = (1 - z_t) * h_{t-1} + z_t * v_t

Shape letters: B batch, T time, D d_model, H hidden.

Hooks, beside those of every mixer: ``hook_z`` [B,T,H] the update gate, ``hook_v`` [B,T,H] the candidate (the paper's
h tilde), after g. State: ``h`` [B,H] is what crosses from token t to t+1.

h starts at 0, as in the paper's sequential form; its parallel form in log space starts at g(0) = 1/2.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strobe.kernels.diagonal import DIAGONAL, DiagonalCarry, DiagonalSignals
from strobe.models.mixer import Mixer, Streams


@dataclass(frozen=True, kw_only=True)
class Config:
    """`hidden`: width of h. `bias`: whether both gates have one."""

    d_model: int
    hidden: int
    bias: bool = True


class Signals(NamedTuple):
    """What `project` computes for each token."""

    z: Float[Tensor, "batch time hidden"]
    v: Float[Tensor, "batch time hidden"]


class MinGRU(Mixer):
    """The minimal gated recurrent unit; see the module's docstring."""

    family = DIAGONAL
    Config, Signals, Carry, Memory, memory = Config, Signals, DiagonalCarry, DiagonalCarry, "h"

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.W_z = nn.Linear(config.d_model, config.hidden, bias=config.bias)
        self.W_h = nn.Linear(config.d_model, config.hidden, bias=config.bias)
        self.out_proj = nn.Linear(config.hidden, config.d_model, bias=False)

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> DiagonalCarry:
        """An h of 0, float32 at least."""
        wide = torch.promote_types(dtype, torch.float32)
        return DiagonalCarry(torch.zeros(batch, self.config.hidden, dtype=wide, device=device))

    def project(self, x: Tensor, carry: Any, mask: Tensor | None) -> tuple[Signals, Streams]:
        """Gate and candidate."""
        return Signals(z=self.W_z(x).sigmoid(), v=positive(self.W_h(x))), {}

    def inputs(self, signals: Signals) -> DiagonalSignals:
        """The family's signals: a = 1 - z, b = z v."""
        return DiagonalSignals(a=1 - signals.z, b=signals.z * signals.v)

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """h, projected back to d_model."""
        return self.out_proj(read.to(signals.z.dtype))


def positive(u: Tensor) -> Tensor:
    """The paper's g: u + 1/2 where u >= 0, sigmoid(u) elsewhere."""
    return torch.where(u >= 0, u + 0.5, u.sigmoid())
