"""Nonlinear vector recurrences, with the raw input in the signals so that torch's fused kernels can run them.

Each cell is a family: `elman`, `gru`, `lstm`, `slstm`; their R is dense or block-diagonal by head.
"""

from types import ModuleType

from strobe.kernels.reference import loop
from strobe.kernels.rnn import chunked, elman, gru, lstm, slstm
from strobe.kernels.rnn.elman import ElmanCarry, ElmanSignals, ElmanTrace, elman_trace
from strobe.kernels.rnn.gru import GRUCarry, GRUSignals, GRUTrace, gru_trace
from strobe.kernels.rnn.lstm import LSTMCarry, LSTMSignals, LSTMTrace, lstm_trace
from strobe.kernels.rnn.mask import reader
from strobe.kernels.rnn.slstm import SLSTMCarry, SLSTMSignals, SLSTMTrace, slstm_trace
from strobe.kernels.scan import Family
from strobe.kernels.triton.backend import TritonBackend

_WEIGHTS = frozenset({"W", "R", "b", "b_r"})


def _triton() -> ModuleType:
    from strobe.kernels.triton_rnn import adapter

    return adapter


def _family(name: str, cell, fast) -> Family:
    return Family(
        name=name,
        step=cell.step,
        init_carry=cell.init_carry,
        reader=reader,
        hold=cell.hold,
        backends={
            "reference": loop(cell.step, reader, _WEIGHTS),
            "chunked": fast,
            "triton": TritonBackend(_triton),
        },
        constants=_WEIGHTS,
    )


ELMAN = _family("elman", elman, chunked.elman)
GRU = _family("gru", gru, chunked.gru)
LSTM = _family("lstm", lstm, chunked.lstm)
SLSTM = _family("slstm", slstm, chunked.slstm)
NONLINEAR = frozenset(family.name for family in (ELMAN, GRU, LSTM, SLSTM))
"""Names of the families whose carry is fed through a nonlinearity; a cell added above belongs here."""

__all__ = [
    "ELMAN",
    "GRU",
    "LSTM",
    "NONLINEAR",
    "SLSTM",
    "ElmanCarry",
    "ElmanSignals",
    "ElmanTrace",
    "GRUCarry",
    "GRUSignals",
    "GRUTrace",
    "LSTMCarry",
    "LSTMSignals",
    "LSTMTrace",
    "SLSTMCarry",
    "SLSTMSignals",
    "SLSTMTrace",
    "elman_trace",
    "gru_trace",
    "lstm_trace",
    "slstm_trace",
]
