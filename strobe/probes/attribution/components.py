"""What wrote the residual stream: the embedding, each mixer, each mlp, and whatever a block added besides.

The sum is the residual stream itself, to rounding, on every model: where a block does more than add two outputs (a
multiplier, a norm behind the output), the difference is a component of its own and not lost.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.probes.lens.readout import evaluating

# A block's remainder below this share of what the block wrote is rounding.
_ROUNDING = 1e-4


class Components(NamedTuple):
    """`parts` [component, batch, time, d_model] with their `names`, `layers` (-1 for the embedding), and `final`, the
    residual stream after the last block, which they add up to."""

    names: list[str]
    layers: list[int]
    parts: Float[Tensor, "component batch time d_model"]
    final: Float[Tensor, "batch time d_model"]
    logits: Float[Tensor, "batch time d_vocab"]


def decompose(model: Any, tokens: Tensor, position: int | slice = slice(None)) -> Components:
    """The components of the residual stream of `tokens` [batch, time], at `position` (kept as an axis of length 1).

    In float32, or float64 for a float64 model.
    """
    n = model.cfg.n_layers
    written = {
        (i, kind): name
        for i in range(n)
        for kind, name in (("mixer", hook_names.mixer_out(i)), ("mlp", hook_names.mlp_out(i)))
        if name in model.hook_dict
    }
    streams = [hook_names.resid_pre(i) for i in range(n)] + [hook_names.resid_post(n - 1)]
    names_filter = [*streams, *written.values()]
    where = slice(position, position + 1 or None) if isinstance(position, int) else position
    with evaluating(model), torch.no_grad():
        logits, cache = model.run_with_cache(
            tokens.to(next(model.parameters()).device), names_filter=names_filter, pos_slice=where
        )
    wide = torch.promote_types(logits.dtype, torch.float32)
    stream = [cache[name].to(wide) for name in streams]
    parts: list[tuple[str, int, Tensor]] = [("embed", -1, stream[0])]
    for i in range(n):
        here = [(kind, cache[name].to(wide)) for (layer, kind), name in written.items() if layer == i]
        parts += [(f"{i} {kind}", i, x) for kind, x in here]
        rest = stream[i + 1] - stream[i] - sum(x for _, x in here)
        size = torch.stack([stream[i], *(x for _, x in here)]).norm()
        if float(rest.norm()) > _ROUNDING * float(size):
            parts.append((f"{i} rest", i, rest))
    return Components(
        names=[name for name, _, _ in parts],
        layers=[layer for _, layer, _ in parts],
        parts=torch.stack([x for _, _, x in parts]),
        final=stream[-1],
        logits=logits[:, where],
    )
