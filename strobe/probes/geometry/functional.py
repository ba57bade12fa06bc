"""What it does to the model's output to put something else in the place of a block's output, one token at a time.

The text before the token runs once; all replacements at a token go on together from copies of the state it left, as
rows of one batch. So nothing but that token is changed, and no text is run once for each of its tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.models.state import ModelState

# Logits held at a time: 2^25 numbers are 256 MB in float64.
_LOGITS = 2**25
# Texts that are read at once, and sequences that go on at once.
_TEXTS, _ROWS = 16, 512
# Bytes of state, of all layers together, that the texts may hold, and that the copies going on from it may. A deep
# model takes fewer at a time instead of more memory; one text, and one replacement beside the token, always go.
_HELD, _COPIED = 2**23, 2**25


@torch.no_grad()
def replacement_kl(
    model: Any,
    tokens: Tensor,
    positions: Sequence[int],
    layer: int,
    replacements: Float[Tensor, "row position variant d_model"],
    horizon: int = 1,
) -> Float[np.ndarray, "row position variant"]:
    """KL(as it is || replaced) in nats, of the prediction at the token whose block output was replaced.

    `tokens` [row, time]; `positions` ascending; `replacements` are put at ``blocks.{layer}.hook_resid_post``. With
    `horizon` the divergences at the following tokens, as far as the row goes, are added: ``horizon - 1`` of them.
    """
    device = next(model.parameters()).device
    tokens = tokens.to(device)
    together = max(1, min(_TEXTS, _HELD // max(_state_bytes(model, tokens.shape[1]), 1)))
    parts = zip(tokens.split(together), replacements.split(together), strict=True)
    return np.concatenate([_of_texts(model, part, positions, layer, put.to(device), horizon) for part, put in parts])


def _of_texts(
    model: Any, tokens: Tensor, positions: Sequence[int], layer: int, replacements: Tensor, horizon: int
) -> np.ndarray:
    """`replacement_kl` of a few rows, whose state is held."""
    n_rows, n_variants = len(tokens), replacements.shape[2]
    found = np.full((n_rows, len(positions), n_variants), np.nan)
    state, done = None, 0
    for at, position in enumerate(positions):
        if position > done:
            state = model.state_after(tokens[:, done:position], state)
            done = position
        each = 0 if state is None else sum(x.nbytes for c in state.carries.values() for x in c) // n_rows
        most = max(2, min(_ROWS, _LOGITS // (horizon * model.cfg.d_vocab), _COPIED // max(each, 1)))
        some = min(n_variants, most - 1)
        for rows in torch.arange(n_rows, device=tokens.device).split(max(1, most // (1 + some))):
            given = tokens[rows, position : position + horizon]
            for first in range(0, n_variants, some):
                put = replacements[rows, at, first : first + some]
                there = None if state is None else _copies(state, rows, 1 + put.shape[1])
                kl = _run(model, given, there, layer, put)
                found[rows.cpu().numpy(), at, first : first + some] = kl.cpu().numpy()
    return found


def _state_bytes(model: Any, time: int) -> int:
    """Bytes of the state of one text of `time` tokens, all layers together."""
    like = next(model.parameters())
    empty = [m.init_carry(1, like.dtype, torch.device("meta")) for m in model.carriers.values()]
    return sum(
        x.itemsize * (time * math.prod(x.shape[2:]) if field in getattr(carry, "grows", ()) else x.numel())
        for carry in empty
        for field, x in zip(carry._fields, carry, strict=True)
    )


def _run(model: Any, given: Tensor, state: ModelState | None, layer: int, put: Tensor) -> Tensor:
    """KL [row, variant] in nats: copy 0 of each row is left as it is."""
    n_rows, n_variants = put.shape[:2]

    def replaced(x: Tensor, hook: Any) -> Tensor:
        x = x.clone().unflatten(0, (n_rows, 1 + n_variants))
        x[:, 1:, 0] = put.to(x)
        return x.flatten(0, 1)

    copies = given.repeat_interleave(1 + n_variants, 0)
    logits = model.run_with_hooks(copies, fwd_hooks=[(hook_names.resid_post(layer), replaced)], state=state)
    log_p = logits.double().log_softmax(-1).unflatten(0, (n_rows, 1 + n_variants))
    left, right = log_p[:, :1], log_p[:, 1:]
    # Rounding can take the divergence of equal distributions below zero by 1e-17; it is never negative.
    return (left.exp() * (left - right)).sum((-1, -2)).clamp_min(0)


def _copies(state: ModelState, rows: Tensor, n: int) -> ModelState:
    index = rows.repeat_interleave(n)
    return replace(state, carries={k: type(c)(*(x[index] for x in c)) for k, c in state.carries.items()})


def variants(
    y: Float[Tensor, "token d_model"], mapped: Float[Tensor, "token map d_model"], seed: int
) -> Float[Tensor, "token variant d_model"]:
    """What is put in the place of each `y`: every map's T(x), then its two controls, map by map.

    The residual y - T(x) in a random direction with its length kept, and another token's residual scaled to its length.
    Both controls are ours. Order: own of all maps, random of all maps, permuted of all maps.
    """
    residual = y[:, None] - mapped
    length = residual.norm(dim=-1, keepdim=True)
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    # A cycle through all tokens in random order: no token keeps its own residual.
    order = torch.randperm(len(y), generator=generator)
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    strange = residual[other.to(y.device)]
    size = strange.norm(dim=-1, keepdim=True)
    strange = torch.where(size > 0, strange * length / torch.where(size > 0, size, 1.0), 0.0)
    return torch.cat([mapped, y[:, None] - length * direction[:, None], y[:, None] - strange], 1)
