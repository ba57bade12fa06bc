"""Block-diagonal recurrent weights: heads whose channels do not meet inside a step (Beck et al. 2024, section 2.2).

R is [gates * hidden, dim]: its rows are those of the dense matrix, gate by gate and head by head, and of each row the
dim columns of that row's own head are kept. hidden / dim is the number of heads; with dim = hidden R is dense.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def heads_of(R: Tensor, gates: int) -> int:
    """How many heads R [gates * hidden, dim] has. Raises ValueError where its rows are not so many whole heads."""
    rows, dim = R.shape
    if rows % (gates * dim):
        raise ValueError(
            f"R of shape {rows} x {dim} was given for {gates} gates; its rows are gates x heads x {dim}, so give a "
            f"multiple of {gates * dim}"
        )
    return rows // (gates * dim)


def recurrent(h: Tensor, R: Tensor, gates: int) -> Tensor:
    """R h, [..., gates * hidden], for `h` [..., hidden]."""
    heads, dim = heads_of(R, gates), R.shape[1]
    if heads == 1:
        return F.linear(h, R)
    by_head = torch.einsum("...hj,ghij->...ghi", h.unflatten(-1, (heads, dim)), R.unflatten(0, (gates, heads, dim)))
    return by_head.flatten(-3)


def dense(R: Tensor, gates: int) -> Tensor:
    """The same weights as one matrix [gates * hidden, hidden], as a library kernel takes them."""
    heads, dim = heads_of(R, gates), R.shape[1]
    if heads == 1:
        return R
    blocks = R.unflatten(0, (gates, heads, dim))
    return torch.einsum("ghij,hk->ghikj", blocks, torch.eye(heads, dtype=R.dtype, device=R.device)).reshape(
        gates * heads * dim, heads * dim
    )
