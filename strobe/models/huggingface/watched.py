"""The pattern of an attention that TransformerLens bridges as a whole: shown, and taken back changed.

While someone hooks it, the attention's inner function is one that writes the pattern out; otherwise transformers' own
runs. Only the function between the projections is exchanged, by transformers' own table of them, so that
rotary positions, grouped keys, gates and biases stay theirs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def has_pattern(module: Any) -> bool:
    """Whether `module` is an attention of transformers that asks its configuration for the inner function."""
    return hasattr(module, "num_key_value_groups") and hasattr(getattr(module, "config", None), "_attn_implementation")


@contextmanager
def pattern_shown(module: Any, point: HookPoint) -> Iterator[None]:
    """Have the attention `module` pass its pattern [batch, heads, queries, keys] through `point` for the duration."""
    config, name = module.config, f"strobe_pattern_{id(point)}"
    before = config._attn_implementation
    ALL_ATTENTION_FUNCTIONS[name] = _through(point)
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before
        del ALL_ATTENTION_FUNCTIONS[name]


def _through(point: HookPoint) -> Any:
    def attend(
        module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float,
        dropout: float = 0.0, **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """softmax(q k^T scaling + mask) v, the softmax in float32."""
        key, value = (x.repeat_interleave(module.num_key_value_groups, 1) for x in (key, value))
        scores = _masked(query @ key.transpose(2, 3) * scaling, attention_mask)
        pattern = point(scores.softmax(-1, dtype=torch.promote_types(torch.float32, query.dtype)).to(query.dtype))
        pattern = torch.nn.functional.dropout(pattern, p=dropout, training=module.training)
        return (pattern @ value).transpose(1, 2).contiguous(), pattern

    return attend


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """`scores` under a mask as transformers makes them: None (causal), True where a query sees a key, or numbers."""
    if mask is None:
        queries, keys = scores.shape[-2:]
        mask = torch.ones(queries, keys, dtype=torch.bool, device=scores.device).tril(keys - queries)
    if mask.ndim not in (2, 4) or mask.shape[-2:] != scores.shape[-2:]:
        raise ValueError(
            f"the attention pattern was asked for; its mask is {tuple(mask.shape)} for scores {tuple(scores.shape)}; "
            "load the model with attn_implementation='eager' or 'sdpa'"
        )
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask
