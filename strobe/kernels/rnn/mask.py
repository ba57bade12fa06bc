"""What the cells share: padding, readers, h_{t-1}, and random signals for tests."""

from typing import Any

import torch
from torch import Tensor


def hold(signals: Any, mask: Tensor) -> Any:
    """`signals` whose tokens are padding where `mask` [batch, time] is False (and where they already were)."""
    return signals._replace(mask=mask.bool() if signals.mask is None else signals.mask & mask.bool())


def keep(mask: Tensor | None, new: Any, old: Any) -> Any:
    """The carry `new` in rows where `mask` [batch] is True, `old` elsewhere."""
    if mask is None:
        return new
    return type(new)(*(torch.where(mask.unsqueeze(-1), n, o) for n, o in zip(new, old, strict=True)))


def reader(carry: Any, readers: Tensor) -> Tensor:
    """`readers` [n_readers, hidden] are directions in the space of h; the answer is u . h_t, [batch, n_readers]."""
    return carry.h @ readers.T.to(carry.h.dtype)


def before(first: Tensor, read: Tensor) -> Tensor:
    """h_{t-1} for every t [batch, time, hidden], given `first` = h_0 and `read` = h."""
    return torch.cat([first.unsqueeze(1), read[:, :-1]], 1)


def random_weights(
    gates: int, batch: int, time: int, *, dtype: torch.dtype, seed: int, input: int, hidden: int, heads: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, W, R, b for a cell with `gates` gates and `heads` heads."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    dim = hidden // heads
    W, R = normal(gates * hidden, input) * input**-0.5, normal(gates * hidden, dim) * dim**-0.5
    return normal(batch, time, input), W, R, normal(gates * hidden)
