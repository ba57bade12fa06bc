"""Padding and library kernels, which know only whole sequences: bring the real tokens of each row to its front.

The kernel then runs once over the compacted rows. What padding is left at a row's end changes nothing before it, and
each token's h is the kernel's h at that row's latest real token. Exact for any mask: left, right, or with holes.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Compacted(NamedTuple):
    """`x` [batch, longest, input]: the real tokens of each row, then others. `real` [batch, longest]: which are real.

    `latest` [batch, time]: how many real tokens the row has had up to and including token t.
    """

    x: Tensor
    real: Tensor
    latest: Tensor


def compact(x: Tensor, mask: Tensor) -> Compacted:
    """Move the tokens of `x` [batch, time, input] with a True in `mask` [batch, time] to the front, in order."""
    latest = mask.cumsum(1)
    longest = max(int(latest[:, -1].max()), 1)
    if (mask[:, 1:] > mask[:, :-1]).any():
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
        x = x.take_along_dim(order.unsqueeze(-1), 1)
    else:
        x = x[:, :longest]
    return Compacted(x, torch.arange(longest, device=x.device) < latest[:, -1:], latest)


def expand(first: Tensor, compacted: Tensor, latest: Tensor) -> Tensor:
    """Every token's h [batch, time, hidden] from `compacted` [batch, longest, hidden]; `first` before any real one."""
    return torch.cat([first.unsqueeze(1), compacted], 1).take_along_dim(latest.unsqueeze(-1), 1)
