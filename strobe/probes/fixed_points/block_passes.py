"""One block of a model applied to a residual stream of one's own, through its hook points, whatever the architecture.

A pass is begun with the tokens, the stream is put in place of the block's input, and the pass is left once the block
has answered. What lies below the block runs in vain; that is the price of knowing only hook names.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Stream = Float[Tensor, "batch time d_model"]


class _Answered(Exception):
    """Leaves a pass early, from inside a hook."""


def n_blocks(model: Any) -> int:
    """How many blocks have a residual stream to put something in. Raises ValueError where there is none."""
    count = sum(name.startswith("blocks.") and name.endswith(".hook_resid_pre") for name in model.hook_dict)
    if not count:
        raise ValueError(
            f"{model.model_name} has no hook 'blocks.0.hook_resid_pre', so that no block of it can be applied by "
            "itself; give a model whose blocks have one"
        )
    return count


def streams(model: Any, tokens: Tensor) -> list[Stream]:
    """The residual stream before each block, and after the last, of one pass over `tokens` [batch, time]."""
    n = n_blocks(model)
    names = [f"blocks.{i}.hook_resid_pre" for i in range(n)] + [f"blocks.{n - 1}.hook_resid_post"]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=names)
    return [cache[name].detach() for name in names]


def apply_block(model: Any, tokens: Tensor, block: int, stream: Stream) -> Stream:
    """What `block` makes of `stream`; `tokens` [batch, time] only say where a pass begins. Gradients reach `stream`."""
    caught: list[Tensor] = []

    def leave(x: Tensor, hook: Any) -> None:
        caught.append(x)
        raise _Answered

    hooks = [(f"blocks.{block}.hook_resid_pre", lambda x, hook: stream), (f"blocks.{block}.hook_resid_post", leave)]
    try:
        model.run_with_hooks(tokens, fwd_hooks=hooks, return_type=None, check=False)
    except _Answered:
        return caught[0]
    raise AssertionError(f"block {block} of {model.model_name} was not reached")


def read_out(model: Any, tokens: Tensor, stream: Stream) -> Float[Tensor, "batch time d_vocab"]:
    """The model's logits if `stream` came out of its last block."""
    name = f"blocks.{n_blocks(model) - 1}.hook_resid_post"
    return model.run_with_hooks(tokens, fwd_hooks=[(name, lambda x, hook: stream)])
