"""The reference backend of every family: a loop over `Family.step`, in any dtype. It is the definition."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from strobe.kernels.scan import Backend, Carry, Segment, Signals


def loop(
    step: Callable[[Signals, Carry], tuple[Carry, Tensor]],
    reader: Callable[[Carry, Tensor], Tensor],
    constants: frozenset[str] = frozenset(),
) -> Backend:
    """A backend that calls `step` once for each token."""

    def run(signals: Signals, carry: Carry, positions: list[int], readers: Tensor | None) -> Segment:
        time = next(
            x.shape[1] for f, x in zip(signals._fields, signals, strict=True) if x is not None and f not in constants
        )
        reads: list[Tensor] = []
        answers: list[Tensor] = []
        kept: list[Any] = []
        wanted = set(positions)
        for t in range(time):
            now = type(signals)(
                *(x if x is None or f in constants else x[:, t] for f, x in zip(signals._fields, signals, strict=True))
            )
            carry, read = step(now, carry)
            reads.append(read)
            if readers is not None:
                answers.append(reader(carry, readers))
            if t in wanted:
                kept.append(carry)
        return Segment(
            read=torch.stack(reads, 1),
            carry=carry,
            captured=stack_carries(kept) if kept else None,
            readers=torch.stack(answers, 1) if answers else None,
        )

    return run


def stack_carries(carries: list[Carry]) -> Carry:
    """Carries of successive positions as one carry whose fields are [batch, n_positions, ...]."""
    return type(carries[0])(*(torch.stack(column, 1) for column in zip(*carries, strict=True)))
