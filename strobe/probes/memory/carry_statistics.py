"""Numbers that describe a captured memory: moments by head and by channel, rank, saturation, distance from a range.

A memory is [batch, n, heads, key, value], [batch, n, channels, state] or [batch, n, channels]; the last two count as
one head. A *channel* is a row: a key channel of a head, or a channel of a vector. Complex memories go by magnitude.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

# Beyond this a unit of a cell whose carry lies in (-1, 1) counts as saturated: ours.
_SATURATED = 0.9
# By family: what brings its memory into (-1, 1). None of the linear families is bounded.
_BOUNDED = {"elman": lambda h: h, "gru": lambda h: h, "lstm": torch.tanh}


class Moments(NamedTuple):
    """Over the batch and the entries of a unit, each [n, units]; `norm` is Euclidean, averaged over the batch."""

    mean: Tensor
    variance: Tensor
    largest: Tensor
    norm: Tensor


def real(memory: Tensor) -> Tensor:
    """`memory` in float32, complex numbers by their magnitude."""
    return memory.abs().float() if memory.is_complex() else memory.float()


def by_head(memory: Tensor) -> Moments:
    """Moments of each head: [n, heads]."""
    x = real(memory)
    return _moments(x.flatten(3) if x.ndim == 5 else x.flatten(2).unsqueeze(2))


def by_channel(memory: Tensor) -> Moments:
    """Moments of each channel: [n, heads * key] or [n, channels]."""
    x = real(memory)
    return _moments(x.flatten(2, 3) if x.ndim == 5 else x if x.ndim == 4 else x.unsqueeze(-1))


def _moments(x: Float[Tensor, "batch n units entries"]) -> Moments:
    variance, mean = torch.var_mean(x, dim=(0, 3), correction=0)
    return Moments(mean, variance, x.abs().amax((0, 3)), x.norm(dim=-1).mean(0))


def effective_rank(memory: Tensor) -> Tensor | None:
    """Exponential of the entropy of the normalised singular values of each matrix (Roy & Vetterli 2007), mean over the
    batch: [n, heads]; None for a memory of vectors. 0 where the matrix is empty.

    From the eigenvalues of the smaller Gram matrix in float64: values below 1e-8 of the largest are lost, which the
    entropy does not see.
    """
    if memory.ndim < 4:
        return None
    x = real(memory).double()
    x = x if x.ndim == 5 else x.unsqueeze(2)
    gram = x.mT @ x if x.shape[-1] <= x.shape[-2] else x @ x.mT
    values = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    p = values / values.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    rank = torch.special.entr(p).sum(-1).exp() * (values.sum(-1) > 0)
    return rank.mean(0)


def saturation(family: str, memory: Tensor, rank: Tensor | None) -> Tensor | None:
    """How full the memory is, [n, heads], in [0, 1]; ours. Of a matrix: its effective `rank` over the largest possible
    one. Of a bounded cell (elman, gru, lstm): the share of units beyond 0.9 of their bound. None for other vectors."""
    if rank is not None:
        return rank / min(memory.shape[-2:])
    if family not in _BOUNDED:
        return None
    return (_BOUNDED[family](real(memory)).abs() > _SATURATED).double().mean(dim=(0, 2)).unsqueeze(1)


class TrainingRange:
    """Where each unit of a memory was while the input was no longer than in training, and how far it goes later.

    The rows of the batch with even number make the range; those with odd number are compared with it, inside the
    training length too: that is what an unseen text does anyway, and the control. Ours, after the unexplored-states
    hypothesis of Buitrago & Gu 2025 (arXiv 2507.02782).
    """

    def __init__(self) -> None:
        self._low: Tensor | None = None
        self._high = self._sum = self._square = torch.empty(0)
        self._count = 0
        self._held: list[Tensor] = []

    @property
    def fitted(self) -> bool:
        """Whether there was a sample inside the training length."""
        return self._count > 0

    def fit(self, memory: Tensor) -> None:
        """Take in the samples [batch, n, ...] of `memory`, which lie inside the training length."""
        x = real(memory).flatten(2)
        mine, self._held = x[::2].flatten(0, 1), [*self._held, x[1::2]]
        low, high = mine.amin(0), mine.amax(0)
        if self._low is None:
            self._low, self._high = low, high
            self._sum, self._square = torch.zeros_like(low, dtype=torch.float64), torch.zeros_like(low).double()
        self._low, self._high = torch.minimum(self._low, low), torch.maximum(self._high, high)
        self._sum += mine.double().sum(0)
        self._square += mine.double().pow(2).sum(0)
        self._count += len(mine)

    def inside(self) -> tuple[Tensor, Tensor]:
        """`distance` of the held-out rows inside the training length, [n] each: the control."""
        parts = [self._distance(x) for x in self._held]
        return torch.cat([share for share, _ in parts]), torch.cat([z for _, z in parts])

    def distance(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(share of units outside the range, root mean square of their z-scores), [n] each, of the odd rows.

        Units that never moved have no z-score and are left out of it.
        """
        return self._distance(real(memory).flatten(2)[1::2])

    def _distance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert self._low is not None, "distance is asked for after fit"
        share = ((x < self._low) | (x > self._high)).double().mean(dim=(0, 2))
        mean = self._sum / self._count
        deviation = (self._square / self._count - mean**2).clamp(min=0).sqrt()
        moved = deviation > 1e-6 * self._square.div(self._count).sqrt()
        z = (x.double() - mean)[..., moved] / deviation[moved]
        return share, z.pow(2).mean(dim=(0, 2)).sqrt()
