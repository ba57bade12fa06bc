"""The bridge component that holds a transplanted mixer: its hook points in the bridge's registry, their block's call
answered.

Inside a pass of ours the mixer has a `Run` and ignores what transformers passes beside the activations. Outside (the
bridge's or transformers' own forward and generate) there is none: then the padding mask comes from their argument,
the carry is kept in their cache object, and a hooked ``hook_carry`` or ``hook_state`` looks at the last token of each
call.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformers.cache_utils import Cache, LinearAttentionLayer

from strobe.models.huggingface.seam import Transplant
from strobe.models.huggingface.watched import has_pattern, pattern_shown
from strobe.models.mixer import Mixer
from strobe.models.run import Run


class MixerComponent(GeneralizedComponent):
    """A block's token mixer. Hooks: ``hook_in`` and ``hook_out`` [batch, time, d_model]; a recurrent mixer's own; of an
    attention in the same slot ``hook_pattern`` [batch, heads, queries, keys]."""

    def __init__(self, transplant: Transplant, *, optional: bool = False) -> None:
        super().__init__(name=transplant.slot, optional=optional)
        self._transplant = transplant

    def set_original_component(self, original_component: Any) -> None:
        """Wrap `original_component` and own its hook points, so that the bridge's registry finds them."""
        super().set_original_component(original_component)
        if isinstance(original_component, Mixer):
            for name, child in original_component.named_children():
                if isinstance(child, HookPoint):
                    setattr(self, name, child)
        elif has_pattern(original_component):
            self.hook_pattern = HookPoint()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Answer the block's call."""
        mixer = self.original_component
        if not isinstance(mixer, Mixer):
            if not has_pattern(mixer) or not self.hook_pattern.has_hooks():
                return super().forward(*args, **kwargs)
            with pattern_shown(mixer, self.hook_pattern):
                return super().forward(*args, **kwargs)
        arguments = dict(zip(self._transplant.call, args, strict=False)) | kwargs
        x = self.hook_in(arguments[self._transplant.call[0]])
        out = mixer(x) if mixer.run is not None else self._outside(mixer, x, arguments)
        return self._transplant.reply(self.hook_out(out), arguments)

    def _outside(self, mixer: Mixer, x: Tensor, arguments: Mapping[str, Any]) -> Tensor:
        layer = _cache_layer(mixer, arguments)
        carries = {} if layer is None or layer.carry is None else {mixer.key: layer.carry}
        mask = arguments.get("attention_mask")
        if mask is not None and mask.ndim == 2:
            mask = mask[:, -x.shape[1] :].bool()
            mask = None if bool(mask.all()) else mask
        else:
            mask = None
        run = Run(carries=carries, looks=[x.shape[1] - 1], mask=mask)
        mixer.run = run
        try:
            out = mixer(x)
        finally:
            mixer.run = None
        if layer is not None:
            layer.keep(run.after[mixer.key])
        return out


class CarryLayer(LinearAttentionLayer):
    """One layer of transformers' cache that holds the carry of a mixer of ours, so that their generate can go on from
    it."""

    def __init__(self) -> None:
        super().__init__()
        self.carry: Any = None

    def keep(self, carry: Any) -> None:
        """Replace the carry; the old one is not written to."""
        self.carry, self.device, self.dtype = carry, carry[0].device, carry[0].dtype
        self.has_previous_state[0] = True

    def reset(self) -> None:
        """Forget the carry."""
        self.carry = None
        self.has_previous_state[0] = False

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Take rows `beam_idx` of the batch (beam search)."""
        if self.carry is not None:
            self.carry = type(self.carry)(*(x.index_select(0, beam_idx.to(x.device)) for x in self.carry))

    def crop(self, tokens_to_remove: int) -> None:
        """Raise RuntimeError: a recurrence cannot be taken back."""
        raise RuntimeError(
            f"crop by {tokens_to_remove} tokens was asked of a recurrent layer, whose carry cannot be taken back; "
            "keep the state from before and go on from it"
        )


def _cache_layer(mixer: Mixer, arguments: Mapping[str, Any]) -> CarryLayer | None:
    """This mixer's layer of the cache that transformers passed, made ours on first use; None without a cache."""
    if arguments.get("state") is not None:
        raise RuntimeError(
            f"transformers passed its own RWKV state to {mixer.key}, which keeps its carry in a ModelState; "
            "call with use_cache=False, or use the model's own generate, state_after and forward(..., state=)"
        )
    cache = arguments.get("cache_params")
    if cache is None:
        cache = arguments.get("past_key_values")
    if not isinstance(cache, Cache):
        return None
    index = int(mixer.key.split(".")[1])
    layer = cache.layers[index]
    if not isinstance(layer, CarryLayer):
        layer = cache.layers[index] = CarryLayer()
    return layer
