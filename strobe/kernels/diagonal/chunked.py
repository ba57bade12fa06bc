"""The diagonal family for a whole sequence: one call of `diagonal_scan`, whose result already is every carry."""

from torch import Tensor

from strobe.kernels.diagonal.recurrence import diagonal_scan
from strobe.kernels.diagonal.reference import DiagonalCarry, DiagonalSignals, answer
from strobe.kernels.scan import Segment


def run(signals: DiagonalSignals, carry: DiagonalCarry, positions: list[int], readers: Tensor | None) -> Segment:
    """Backend of the family; see `strobe.kernels.diagonal.reference` for shapes."""
    h = diagonal_scan(signals.a, signals.b, carry.h)
    return Segment(
        read=h,
        carry=DiagonalCarry(h[:, -1]),
        captured=DiagonalCarry(h[:, positions]) if positions else None,
        readers=None if readers is None else answer(h, readers),
    )
