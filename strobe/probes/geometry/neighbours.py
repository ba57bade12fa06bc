"""Nearest neighbours in representation space, never of the same sequence.

With a token among its own neighbours, any class of maps that is rich enough sends it where it went, and nothing is left
to call a residual; its own sequence says nearly as much about it.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Metric = Literal["cosine", "euclidean"]


def neighbours(
    query: Float[Tensor, "query d_model"],
    bank: Float[Tensor, "bank d_model"],
    query_sequence: Int[Tensor, " query"],
    bank_sequence: Int[Tensor, " bank"],
    k: int,
    metric: Metric = "cosine",
) -> Int[Tensor, "query k"]:
    """Indices of the `k` vectors of `bank` nearest to each of `query`, nearest first, none of the query's sequence.

    Raises ValueError if a query has fewer than `k` candidates.
    """
    own = query_sequence[:, None] == bank_sequence[None, :]
    fewest = int((~own).sum(1).min())
    if fewest < k:
        raise ValueError(
            f"{k} neighbours outside the token's own sequence were asked for; there are {fewest}; give more sequences, "
            "or a smaller k"
        )
    distance = -(_unit(query) @ _unit(bank).mT) if metric == "cosine" else torch.cdist(query, bank)
    return distance.masked_fill(own, torch.inf).topk(k, largest=False).indices


def _unit(x: Tensor) -> Tensor:
    return torch.nn.functional.normalize(x, dim=-1)
