"""The key/value cache as a carry: transformers' cache is built from it before a pass and read back after, never
written to.

Masks are made here from what each key is (padding or not, and its position among the real tokens of its row), because
transformers counts slots: with padding between two pieces, a sliding window would then reach less far.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from strobe.models.mixers.attention import KV
from strobe.models.run import Run


class KeyValueCarrier:
    """What holds the key/value cache of one attention layer between passes.

    `kind`: the layer's kind in transformers' configuration. `window`: how many tokens back a query sees, itself
    included; None is all. `run` and `key` are set as on a mixer.
    """

    Carry = KV

    def __init__(self, layer: int, kind: str, groups: int, head_dim: int, window: int | None) -> None:
        self.layer, self.kind, self.groups, self.head_dim, self.window = layer, kind, groups, head_dim, window
        self.run: Run | None = None
        self.key = ""

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> KV:
        """An empty cache."""
        empty = torch.zeros(batch, 0, self.groups, self.head_dim, dtype=dtype, device=device)
        none = torch.zeros(batch, 0, dtype=torch.long, device=device)
        return KV(empty, empty, none.bool(), none, torch.zeros(batch, dtype=torch.long, device=device))


def carriers(config: Any, kinds: Sequence[str]) -> list[KeyValueCarrier]:
    """One carrier for every layer of `config` that keeps keys and values."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    sliding = getattr(config, "sliding_window", None)
    of_layer = getattr(config, "layer_types", None)
    if of_layer is None:
        of_layer = ["sliding_attention" if sliding else "full_attention"] * config.num_hidden_layers
    return [
        KeyValueCarrier(i, kind, groups, head_dim, sliding if kind == "sliding_attention" else None)
        for i, kind in enumerate(of_layer)
        if kind in kinds
    ]


@dataclass
class Pass:
    """What one pass gives transformers: `cache`, `position_ids` [batch, time], and `masks` by kind of layer (None:
    its own)."""

    cache: DynamicCache
    position_ids: Int[Tensor, "batch time"]
    masks: dict[str, Tensor] | None
    past: Mapping[str, KV]
    real: Bool[Tensor, "batch time"]

    def read_back(self, run: Run, every: Sequence[KeyValueCarrier]) -> None:
        """Put each layer's cache after the pass into ``run.after``."""
        for carrier in every:
            past = self.past[carrier.key]
            layer: Any = self.cache.layers[carrier.layer]
            after = KV(
                layer.keys.transpose(1, 2),
                layer.values.transpose(1, 2),
                torch.cat([past.real, self.real], 1),
                torch.cat([past.position, self.position_ids], 1),
                past.seen + self.real.sum(1),
            )
            run.after[carrier.key] = _trim(after, carrier.window)


def prepare(
    config: Any,
    every: Sequence[KeyValueCarrier],
    run: Run,
    batch: int,
    time: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Pass:
    """Build the cache, the positions and the masks of a pass over `time` tokens.

    Raises ValueError if the layers of the state it starts from have seen different numbers of tokens.
    """
    past: dict[str, KV] = {}
    for carrier in every:
        carry = run.carries.get(carrier.key)
        past[carrier.key] = carrier.init_carry(batch, dtype, device) if carry is None else carry
    _check_same_length(past)
    seen = past[every[0].key].seen
    real = torch.ones(batch, time, dtype=torch.bool, device=device) if run.mask is None else run.mask
    # A padding token left of every real one would be at -1, which no position table has.
    position = (seen[:, None] + real.cumsum(1) - 1).clamp_min(0)
    cache = DynamicCache(config=config)
    for carrier in every:
        cache.layers[carrier.layer] = _layer(past[carrier.key], keeps=run.keeps)
    fresh = run.mask is None and all(carry.k.shape[1] == 0 for carry in past.values())
    masks = None if fresh else {c.kind: _mask(past[c.key], real, position, c.window, dtype) for c in reversed(every)}
    return Pass(cache, position, masks, past, real)


class _PassingLayer(DynamicLayer):
    """A cache layer that shows attention what went before and forgets what this pass adds."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """(keys, values) of what went before and of this pass."""
        if not self.is_initialized:
            return key_states, value_states
        before = self.keys, self.values
        try:
            return super().update(key_states, value_states, *args, **kwargs)
        finally:
            self.keys, self.values = before


def _layer(past: KV, *, keeps: bool) -> DynamicLayer:
    """A cache layer holding `past`. It grows by concatenation, which leaves `past` as it is, and it never trims."""
    layer = DynamicLayer() if keeps else _PassingLayer()
    if past.k.shape[1]:
        layer.lazy_initialization(past.k, past.v)
        layer.keys, layer.values = past.k.transpose(1, 2), past.v.transpose(1, 2)
    return layer


def _check_same_length(past: Mapping[str, KV]) -> None:
    first, *others = past
    for name in others:
        if not torch.equal(past[first].seen, past[name].seen):
            raise ValueError(
                f"the state's {name} has seen {past[name].seen.tolist()} tokens, its {first} "
                f"{past[first].seen.tolist()}; layers of attention must have seen the same tokens: splice all of them"
            )


def _mask(
    past: KV,
    real: Bool[Tensor, "batch time"],
    position: Int[Tensor, "batch time"],
    window: int | None,
    dtype: torch.dtype,
) -> Float[Tensor, "batch 1 time keys"]:
    """0 where a query sees a key, else the lowest number: real keys up to its own position, within the window.

    A padding query sees itself: a softmax over nothing would be NaN, and its output is not used.
    """
    time = position.shape[1]
    key_real, key_position = torch.cat([past.real, real], 1), torch.cat([past.position, position], 1)
    distance = position[:, :, None] - key_position[:, None, :]
    allowed = (distance >= 0) & key_real[:, None, :]
    if window is not None:
        allowed &= distance < window
    keys = key_real.shape[1]
    own = torch.arange(keys, device=real.device) == torch.arange(keys - time, keys, device=real.device)[:, None]
    allowed |= own & ~key_real[:, None, :]
    lowest = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=real.device)
    return torch.where(allowed[:, None], torch.zeros((), dtype=dtype, device=real.device), lowest)


def _trim(cache: KV, window: int | None) -> KV:
    """Only what a window can still reach, where no padding makes rows differ."""
    if window is None or cache.k.shape[1] <= window or not bool(cache.real.all()):
        return cache
    k, v, real, position = (t[:, -window:] for t in cache[:4])
    return KV(k, v, real, position, cache.seen)
