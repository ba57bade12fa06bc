"""Torch's own fused kernels (oneDNN, cuDNN) as backends: h at every token at their speed, everything else from h.

The kernels return h for all tokens and the last c. A captured h is a row of the read. A captured c comes by cutting
the call at the positions when these are few, else from `lstm_trace`. Padding: see `strobe.kernels.rnn.compaction`.

No library has sLSTM's cell. Its backend is a loop over tokens, with all that does not wait for h taken out of it.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from strobe.kernels.reference import loop
from strobe.kernels.rnn.autocast import outside_autocast
from strobe.kernels.rnn.blocks import dense, recurrent
from strobe.kernels.rnn.compaction import Compacted, compact, expand
from strobe.kernels.rnn.elman import ElmanCarry, ElmanSignals
from strobe.kernels.rnn.gru import GRUCarry, GRUSignals
from strobe.kernels.rnn.lstm import LSTMCarry, LSTMSignals, lstm_trace, step
from strobe.kernels.rnn.mask import keep, reader
from strobe.kernels.rnn.slstm import SLSTMCarry, SLSTMSignals, cell, widened
from strobe.kernels.scan import Segment

# One more call of the LSTM kernel costs about as much as tracing this many tokens (hidden 256).
TOKENS_PER_CUT = 40
# sigmoid of plus or minus this is 1 or 0 exactly, whatever the other terms of the pre-activation are.
SATURATED = 1e4


@outside_autocast
def elman(signals: ElmanSignals, carry: ElmanCarry, positions: list[int], readers: Tensor | None) -> Segment:
    """Elman backend: `torch.rnn_tanh`."""

    def run(x: Tensor, h0: Tensor) -> Tensor:
        weights = [signals.W, dense(signals.R, 1), signals.b, torch.zeros_like(signals.b)]
        return torch.rnn_tanh(x, h0.unsqueeze(0), weights, True, 1, 0.0, False, False, True)[0]

    read = _with_padding(run, signals, carry.h)
    return _segment(read, ElmanCarry(read[:, -1]), ElmanCarry(read[:, positions]) if positions else None, readers)


@outside_autocast
def gru(signals: GRUSignals, carry: GRUCarry, positions: list[int], readers: Tensor | None) -> Segment:
    """GRU backend: `torch.gru`."""

    def run(x: Tensor, h0: Tensor) -> Tensor:
        weights = [signals.W, dense(signals.R, 3), signals.b, signals.b_r]
        return torch.gru(x, h0.unsqueeze(0), weights, True, 1, 0.0, False, False, True)[0]

    read = _with_padding(run, signals, carry.h)
    return _segment(read, GRUCarry(read[:, -1]), GRUCarry(read[:, positions]) if positions else None, readers)


@outside_autocast
def lstm(signals: LSTMSignals, carry: LSTMCarry, positions: list[int], readers: Tensor | None) -> Segment:
    """LSTM backend: `torch.lstm`, or the step itself for a single token, which costs a tenth of a call."""
    if signals.x.shape[1] == 1:
        mask = None if signals.mask is None else signals.mask[:, 0]
        carry, h = step(signals._replace(x=signals.x[:, 0], mask=mask), carry)
        captured = LSTMCarry(*(x.unsqueeze(1) for x in carry)) if positions else None
        return _segment(h.unsqueeze(1), carry, captured, readers)
    if signals.mask is None and len(positions) * TOKENS_PER_CUT < signals.x.shape[1]:
        return _lstm_in_pieces(signals, carry, positions, readers)
    if signals.mask is None:
        read, end = _lstm_call(signals, signals.x, carry)
    else:
        short = compact(signals.x, signals.mask)
        read, end = _lstm_call(_held_at_the_end(signals, short), _with_flag(short), carry)
        read = expand(carry.h, read, short.latest)
        end = LSTMCarry(read[:, -1], end.c)
    captured = None
    if positions:
        captured = LSTMCarry(read[:, positions], lstm_trace(signals, carry, read).c[:, positions])
    return _segment(read, end, captured, readers)


class _Projected(NamedTuple):
    """An sLSTM's tokens after W x + b, [batch, time, 4 * hidden]."""

    pre: Tensor
    R: Tensor
    mask: Tensor | None


def _projected_step(signals: _Projected, carry: SLSTMCarry) -> tuple[SLSTMCarry, Tensor]:
    carry = keep(signals.mask, cell(signals.pre + recurrent(carry.h, signals.R, 4), carry), carry)
    return carry, carry.h


_projected_loop = loop(_projected_step, reader, frozenset({"R"}))


@outside_autocast
def slstm(signals: SLSTMSignals, carry: SLSTMCarry, positions: list[int], readers: Tensor | None) -> Segment:
    """Backend of sLSTM: W x + b of all tokens in one product, then a loop that computes every field."""
    signals = widened(signals)
    pre = F.linear(signals.x, signals.W, signals.b)
    return _projected_loop(_Projected(pre, signals.R, signals.mask), carry, positions, readers)


def _lstm_call(signals: LSTMSignals, x: Tensor, carry: LSTMCarry) -> tuple[Tensor, LSTMCarry]:
    weights = [signals.W, dense(signals.R, 4), signals.b, torch.zeros_like(signals.b)]
    hx = [carry.h.unsqueeze(0), carry.c.unsqueeze(0)]
    read, h, c = torch.lstm(x, hx, weights, True, 1, 0.0, False, False, True)
    return read, LSTMCarry(h[0], c[0])


def _lstm_in_pieces(signals: LSTMSignals, carry: LSTMCarry, positions: list[int], readers: Tensor | None) -> Segment:
    ends = [0, *(p + 1 for p in positions), signals.x.shape[1]]
    reads, kept = [], []
    for x in signals.x.split([stop - start for start, stop in pairwise(ends)], 1):
        if x.shape[1]:
            read, carry = _lstm_call(signals, x, carry)
            reads.append(read)
        if len(kept) < len(positions):
            kept.append(carry)
    captured = LSTMCarry(*(torch.stack(x, 1) for x in zip(*kept, strict=True))) if kept else None
    return _segment(reads[0] if len(reads) == 1 else torch.cat(reads, 1), carry, captured, readers)


def _held_at_the_end(signals: LSTMSignals, short: Compacted) -> LSTMSignals:
    # One more input, 1 at padding, that shuts i and opens f: c_t = c_{t-1} exactly, so the last c is each row's own.
    hidden = signals.R.shape[0] // 4
    column = signals.W.new_tensor([-SATURATED, SATURATED, 0.0, 0.0]).repeat_interleave(hidden)
    return signals._replace(W=torch.cat([signals.W, column.unsqueeze(1)], 1))


def _with_flag(short: Compacted) -> Tensor:
    return torch.cat([short.x, (~short.real).unsqueeze(-1).to(short.x.dtype)], -1)


def _with_padding(run, signals, h0: Tensor) -> Tensor:
    if signals.mask is None:
        return run(signals.x, h0)
    short = compact(signals.x, signals.mask)
    return expand(h0, run(short.x, h0), short.latest)


def _segment(read: Tensor, carry, captured, readers: Tensor | None) -> Segment:
    return Segment(read, carry, captured, None if readers is None else read @ readers.T)
