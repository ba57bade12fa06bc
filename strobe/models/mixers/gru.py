"""GRU (Cho et al. 2014, arXiv:1406.1078, eqs. 5-8; in torch's form, with the reset gate after the recurrent product).

    r_t = sigmoid(W_r x_t + b_r + R_r h_{t-1} + c_r)
    z_t = sigmoid(W_z x_t + b_z + R_z h_{t-1} + c_z)
    n_t = tanh(W_n x_t + b_n + r_t * (R_n h_{t-1} + c_n))
    h_t = (1 - z_t) * n_t + z_t * h_{t-1}

Shape letters: B batch, T time, D d_model, H hidden.

Hooks, beside those of every mixer: ``hook_x`` [B,T,D] the input; ``hook_gate_r``, ``hook_gate_z``, ``hook_gate_n``
[B,T,H] (read-only: worked out after the fast pass, from its h; to intervene, edit the carry). State: ``h`` [B,H].
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strobe.kernels.rnn import GRU as FAMILY
from strobe.kernels.rnn import GRUCarry, GRUSignals, gru_trace
from strobe.models.mixer import Mixer, Streams
from strobe.models.mixers.recurrent_weights import init_uniform


@dataclass(frozen=True, kw_only=True)
class Config:
    """`hidden`: width of h. `project_out`: a linear map from h back to d_model (needed where they differ)."""

    d_model: int
    hidden: int
    project_out: bool = True


class Signals(NamedTuple):
    """What `project` computes for each token."""

    x: Float[Tensor, "batch time d_model"]


class GRU(Mixer):
    """Gated recurrent unit; see the module's docstring."""

    family = FAMILY
    Config, Signals, Carry, Memory, memory = Config, Signals, GRUCarry, GRUCarry, "h"
    gates = ("r", "z", "n")

    def __init__(self, config: Config) -> None:
        super().__init__()
        if not config.project_out and config.hidden != config.d_model:
            raise ValueError(
                f"gru: hidden {config.hidden} differs from d_model {config.d_model}, so project_out must be on"
            )
        self.config = config
        self.W = nn.Parameter(torch.empty(3 * config.hidden, config.d_model))
        self.R = nn.Parameter(torch.empty(3 * config.hidden, config.hidden))
        self.b = nn.Parameter(torch.empty(3 * config.hidden))
        self.b_r = nn.Parameter(torch.empty(3 * config.hidden))
        init_uniform(self, config.hidden)
        self.out_proj = nn.Linear(config.hidden, config.d_model, bias=False) if config.project_out else nn.Identity()

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> GRUCarry:
        """Zeros."""
        return GRUCarry(torch.zeros(batch, self.config.hidden, dtype=dtype, device=device))

    def project(self, x: Tensor, carry: Any, mask: Tensor | None) -> tuple[Signals, Streams]:
        """The input itself: the library kernel applies W."""
        return Signals(x), {}

    def inputs(self, signals: Signals) -> GRUSignals:
        """The family's signals."""
        return GRUSignals(x=signals.x, W=self.W, R=self.R, b=self.b, b_r=self.b_r, mask=None)

    def trace(self, inputs: Any, carry: Any, read: Tensor) -> Any:
        """Every gate at every token, from h alone."""
        return gru_trace(inputs, carry, read)

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """The state h, projected back to d_model."""
        return self.out_proj(read)
