"""The path of streams under a block that is applied again and again, and of a neighbour of each."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


class DepthPath:
    """The path from `first` [unit, d], and beside it a neighbour of each unit that says how fast the two part."""

    def __init__(self, step: Callable[[Tensor], Tensor], first: Tensor, apart: float) -> None:
        self.step, self.apart = step, apart
        away = torch.randn(first.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.gap = away / away.norm(dim=-1, keepdim=True) * apart * (1 + first.norm(dim=-1, keepdim=True))
        self.path, self.logs = [first], list[Tensor]()

    def advance(self) -> None:
        """One step."""
        x, gap = self.path[-1], self.gap
        units, d = x.shape
        own = torch.arange(units)
        rows = x.expand(units, units, d).clone()
        rows[own, own] += gap
        answers = self.step(torch.cat([x[None], rows]))
        after, size = answers[0], gap.norm(dim=-1)
        apart_now = answers[1:][own, own] - after
        grown = apart_now.norm(dim=-1)
        self.logs.append((grown / size).log())
        reach = self.apart * (1 + after.norm(dim=-1, keepdim=True))
        # A neighbour that falls together with the path is sent out again the way it was.
        away = torch.where(grown[:, None] > 0, apart_now / grown[:, None].clamp_min(1e-300), gap / size[:, None])
        self.gap = away * reach
        self.path.append(after)

    def found(self) -> tuple[np.ndarray, np.ndarray]:
        """(the path [time, unit, d], the largest exponent of each unit over its last half)."""
        late = torch.stack(self.logs[len(self.logs) // 2 :])
        return torch.stack(self.path).numpy(), late.clamp_min(-50).mean(0).numpy()
