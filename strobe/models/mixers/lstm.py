"""LSTM (Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000).

    i_t = sigmoid(W_i x_t + b_i + R_i h_{t-1})        f_t = sigmoid(W_f x_t + b_f + R_f h_{t-1})
    g_t = tanh(W_g x_t + b_g + R_g h_{t-1})           o_t = sigmoid(W_o x_t + b_o + R_o h_{t-1})
    c_t = f_t * c_{t-1} + i_t * g_t                   h_t = o_t * tanh(c_t)

Shape letters: B batch, T time, D d_model, H hidden.

Hooks, beside those of every mixer: ``hook_x`` [B,T,D] the input; ``hook_gate_i``, ``hook_gate_f``, ``hook_gate_g``,
``hook_gate_o`` [B,T,H] (read-only: worked out after the fast pass, from its h; to intervene, edit the carry). State:
``c`` [B,H], the memory that ``hook_state`` shows, and ``h`` [B,H], which feeds the gates of the next token.

Departure from the paper, common since Jozefowicz et al. 2015: b_f starts `forget_bias` higher, so that c is kept at
first. torch.nn.LSTM has two biases; `b` is their sum.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from strobe.kernels.rnn import LSTM as FAMILY
from strobe.kernels.rnn import LSTMCarry, LSTMSignals, lstm_trace
from strobe.models.mixer import Mixer, Streams
from strobe.models.mixers.recurrent_weights import init_uniform


@dataclass(frozen=True, kw_only=True)
class Config:
    """`hidden`: width of h and c. `project_out`: a linear map from h back to d_model (needed where they differ)."""

    d_model: int
    hidden: int
    project_out: bool = True
    forget_bias: float = 1.0


class Signals(NamedTuple):
    """What `project` computes for each token."""

    x: Float[Tensor, "batch time d_model"]


class LSTM(Mixer):
    """Long short-term memory; see the module's docstring."""

    family = FAMILY
    Config, Signals, Carry, Memory, memory = Config, Signals, LSTMCarry, LSTMCarry, "c"
    gates = ("i", "f", "g", "o")

    def __init__(self, config: Config) -> None:
        super().__init__()
        if not config.project_out and config.hidden != config.d_model:
            raise ValueError(
                f"lstm: hidden {config.hidden} differs from d_model {config.d_model}, so project_out must be on"
            )
        self.config = config
        self.W = nn.Parameter(torch.empty(4 * config.hidden, config.d_model))
        self.R = nn.Parameter(torch.empty(4 * config.hidden, config.hidden))
        self.b = nn.Parameter(torch.empty(4 * config.hidden))
        init_uniform(self, config.hidden)
        with torch.no_grad():
            self.b[config.hidden : 2 * config.hidden] += config.forget_bias
        self.out_proj = nn.Linear(config.hidden, config.d_model, bias=False) if config.project_out else nn.Identity()

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> LSTMCarry:
        """An h and a c of 0."""
        zeros = torch.zeros(batch, self.config.hidden, dtype=dtype, device=device)
        return LSTMCarry(zeros, zeros.clone())

    def project(self, x: Tensor, carry: Any, mask: Tensor | None) -> tuple[Signals, Streams]:
        """The input itself: the library kernel applies W."""
        return Signals(x), {}

    def inputs(self, signals: Signals) -> LSTMSignals:
        """The family's signals."""
        return LSTMSignals(x=signals.x, W=self.W, R=self.R, b=self.b, mask=None)

    def trace(self, inputs: Any, carry: Any, read: Tensor) -> Any:
        """Every gate at every token, from h alone."""
        return lstm_trace(inputs, carry, read)

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """h, projected back to d_model."""
        return self.out_proj(read)
