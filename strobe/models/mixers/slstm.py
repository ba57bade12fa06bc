"""sLSTM (Beck et al. 2024, "xLSTM", arXiv:2405.04517, section 2.2, eqs. 8-17).

    i~_t = W_i x_t + b_i + R_i h_{t-1}            f~_t = W_f x_t + b_f + R_f h_{t-1}
    z_t = tanh(W_z x_t + b_z + R_z h_{t-1})       o_t = sigmoid(W_o x_t + b_o + R_o h_{t-1})
    m_t = max(log sigmoid(f~_t) + m_{t-1}, i~_t)
    i_t = exp(i~_t - m_t)                         f_t = exp(log sigmoid(f~_t) + m_{t-1} - m_t)
    c_t = f_t * c_{t-1} + i_t * z_t               n_t = f_t * n_{t-1} + i_t             h_t = o_t * c_t / n_t
    out_t = out_proj(norm(h_t))

Each R is block-diagonal, one block a head; norm is over the channels of a head (the paper's group norm, figure 10). The
input gate is an exponential: c and n are kept divided by e^m, which cancels in h.

Shape letters: B batch, T time, D d_model, H hidden.

Hooks, beside those of every mixer: ``hook_x`` [B,T,D] the input; ``hook_gate_i``, ``hook_gate_f``, ``hook_gate_z``,
``hook_gate_o`` [B,T,H] (read-only: worked out after the fast pass, from its h; to intervene, edit the carry). State:
``c`` [B,H], the memory that ``hook_state`` shows; ``n`` [B,H], what it is divided by; ``m`` [B,H], the log of the scale
of both; ``h`` [B,H], which feeds the gates of the next token. c / n is what is remembered.

Departures from the paper: no causal convolution before the gates (there it is optional), and b_f starts `forget_bias`
higher than the other biases, as is common for the LSTM; both are ours.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from strobe.kernels.rnn import SLSTM as FAMILY
from strobe.kernels.rnn import SLSTMCarry, SLSTMSignals, slstm_trace
from strobe.kernels.rnn.slstm import EMPTY
from strobe.models.mixer import Mixer, Streams
from strobe.models.mixers.recurrent_weights import init_uniform


@dataclass(frozen=True, kw_only=True)
class Config:
    """`hidden`: width of h, c, n and m, of which each of `heads` has an equal part. `norm_eps`: in the norm's root."""

    d_model: int
    hidden: int
    heads: int = 1
    forget_bias: float = 1.0
    norm_eps: float = 1e-5


class Signals(NamedTuple):
    """What `project` computes for each token."""

    x: Float[Tensor, "batch time d_model"]


class SLSTM(Mixer):
    """The xLSTM's scalar memory with an exponential input gate; see the module's docstring."""

    family = FAMILY
    Config, Signals, Carry, Memory, memory = Config, Signals, SLSTMCarry, SLSTMCarry, "c"
    gates = ("i", "f", "z", "o")

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.hidden % config.heads:
            raise ValueError(
                f"slstm: hidden {config.hidden} was given for {config.heads} heads; give a multiple of {config.heads}"
            )
        self.config = config
        self.W = nn.Parameter(torch.empty(4 * config.hidden, config.d_model))
        self.R = nn.Parameter(torch.empty(4 * config.hidden, config.hidden // config.heads))
        self.b = nn.Parameter(torch.empty(4 * config.hidden))
        init_uniform(self, config.hidden)
        with torch.no_grad():
            self.b[config.hidden : 2 * config.hidden] += config.forget_bias
        self.norm_weight = nn.Parameter(torch.ones(config.hidden))
        self.out_proj = nn.Linear(config.hidden, config.d_model, bias=False)

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> SLSTMCarry:
        """0, and for m a number that stands for minus infinity."""
        wide = torch.promote_types(dtype, torch.float32)
        zeros = torch.zeros(batch, self.config.hidden, dtype=wide, device=device)
        return SLSTMCarry(zeros, zeros.clone(), zeros.clone(), torch.full_like(zeros, EMPTY))

    def project(self, x: Tensor, carry: Any, mask: Tensor | None) -> tuple[Signals, Streams]:
        """The input itself: the scan applies W, to all tokens at once."""
        return Signals(x), {}

    def inputs(self, signals: Signals) -> SLSTMSignals:
        """The family's signals."""
        return SLSTMSignals(x=signals.x, W=self.W, R=self.R, b=self.b, mask=None)

    def trace(self, inputs: Any, carry: Any, read: Tensor) -> Any:
        """Every gate at every token, from h alone."""
        return slstm_trace(inputs, carry, read)

    def finish(self, read: Tensor, signals: Signals) -> Float[Tensor, "batch time d_model"]:
        """h, normalised head by head and projected back to d_model."""
        heads = read.unflatten(-1, (self.config.heads, -1))
        normed = F.layer_norm(heads, heads.shape[-1:], eps=self.config.norm_eps).flatten(-2)
        return self.out_proj((self.norm_weight * normed).to(self.out_proj.weight.dtype))
