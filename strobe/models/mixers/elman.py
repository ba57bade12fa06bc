"""Elman network (Elman 1990, "Finding structure in time", with tanh as in `torch.nn.RNN`).

    a_t = W x_t + b + R h_{t-1}
    h_t = tanh(a_t)

Shape letters: B batch, T time, D d_model, H hidden.

Hooks, beside those of every mixer: ``hook_x`` [B,T,D] the input; ``hook_gate_a`` [B,T,H] the pre-activation (read-only:
worked out after the fast pass, from its h; to intervene, edit the carry). State: ``h`` [B,H].
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strobe.kernels.rnn import ELMAN, ElmanCarry, ElmanSignals, elman_trace
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


class Elman(Mixer):
    """Elman's simple recurrent network; see the module's docstring."""

    family = ELMAN
    Config, Signals, Carry, Memory, memory = Config, Signals, ElmanCarry, ElmanCarry, "h"
    gates = ("a",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        if not config.project_out and config.hidden != config.d_model:
            raise ValueError(
                f"elman: hidden {config.hidden} differs from d_model {config.d_model}, so project_out must be on"
            )
        self.config = config
        self.W = nn.Parameter(torch.empty(config.hidden, config.d_model))
        self.R = nn.Parameter(torch.empty(config.hidden, config.hidden))
        self.b = nn.Parameter(torch.empty(config.hidden))
        init_uniform(self, config.hidden)
        self.out_proj = nn.Linear(config.hidden, config.d_model, bias=False) if config.project_out else nn.Identity()

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> ElmanCarry:
        """An h of 0."""
        return ElmanCarry(torch.zeros(batch, self.config.hidden, dtype=dtype, device=device))

    def project(self, x: Tensor, carry: Any, mask: Tensor | None) -> tuple[Signals, Streams]:
        """The input itself: the library kernel applies W."""
        return Signals(x), {}

    def inputs(self, signals: Signals) -> ElmanSignals:
        """The family's signals."""
        return ElmanSignals(x=signals.x, W=self.W, R=self.R, b=self.b, mask=None)

    def trace(self, inputs: Any, carry: Any, read: Tensor) -> Any:
        """The pre-activation at every token, from h alone."""
        return elman_trace(inputs, carry, read)

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """h, projected back to d_model."""
        return self.out_proj(read)
