"""`HuggingFaceLM`: a transformers model behind the same contract and the same hook names as a native one."""

import inspect
from collections.abc import Iterator
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedRootModule

from strobe.models.hooked import StateContract
from strobe.models.huggingface import attention
from strobe.models.huggingface.names import hook_names
from strobe.models.huggingface.seam import Family, blocks_of
from strobe.models.mixer import Mixer
from strobe.models.protocol import ModelProtocol
from strobe.models.run import Run


class HuggingFaceLM(StateContract, ModelProtocol, HookedRootModule):
    """A transformers model with hooks and the state contract (`strobe.models.hooked.StateContract`).

    Takes token ids [batch, time] (or embeddings [batch, time, d_model]) and returns logits [batch, time, d_vocab].
    `bridge` is TransformerLens's, whose own run_with_cache, run_with_hooks and generate work too; `hf` is
    transformers' model, with our mixers at the seam. Parameters go by their names in the checkpoint.
    """

    def __init__(
        self, bridge: Any, family: Family, names: dict[str, nn.Parameter], *, tokenizer: Any, name: str
    ) -> None:
        super().__init__()
        self.bridge, self.family, self.tokenizer, self.model_name = bridge, family, tokenizer, name
        self._checkpoint_names = {id(parameter): key for key, parameter in names.items()}
        mixers = _mixers(bridge.original_model, family)
        kept = attention.carriers(self.hf_config, family.attention) if family.attention else []
        self._kept = kept
        self._adopt(dict(sorted((mixers | {f"blocks.{c.layer}.mixer": c for c in kept}).items(), key=_by_layer)))
        self.hook_dict = hook_names(bridge, self.mixers, {c.layer for c in kept})
        self.mod_dict = bridge.mod_dict | self.hook_dict
        self._takes = set(inspect.signature(self.hf.forward).parameters)

    @property
    def hf(self) -> Any:
        """The transformers model."""
        return self.bridge.original_model

    @property
    def hf_config(self) -> Any:
        """The configuration of its text decoder."""
        return self.hf.config.get_text_config(decoder=True)

    @property
    def cfg(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """A TransformerLens configuration record."""
        return self.bridge.cfg

    @property
    def blocks(self) -> Any:
        """The bridge's blocks."""
        return self.bridge.blocks

    @property
    def ln_final(self) -> Any:
        """The last norm."""
        return self.bridge.ln_final

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """The unembedding."""
        return self.hf.get_output_embeddings().weight.T

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """The embedding."""
        return self.hf.get_input_embeddings().weight

    def accumulated_bias(self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True) -> Tensor:
        """The residual stream's constant part up to `layer`, as TransformerLens works it out."""
        return self.bridge.accumulated_bias(layer, mlp_input, include_mlp_biases)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """(name in the checkpoint, parameter); a parameter that a bridge component added keeps its own name."""
        for name, parameter in super().named_parameters(prefix, recurse, remove_duplicate):
            yield self._checkpoint_names.get(id(parameter), name), parameter

    def _forward(self, inputs: Tensor, run: Run) -> Float[Tensor, "batch time d_vocab"]:
        arguments: dict[str, Any] = {"inputs_embeds" if inputs.is_floating_point() else "input_ids": inputs}
        if not self._kept:
            return self.hf(**arguments, use_cache=False).logits
        like, (batch, time) = self.W_E, inputs.shape[:2]
        kept = attention.prepare(self.hf_config, self._kept, run, batch, time, like.dtype, like.device)
        self._check_positions(kept.position_ids)
        masks: Any = kept.masks
        if masks is not None:
            masks = dict.fromkeys(self.hf_config.layer_types) | masks if self.family.masks_by_kind else _only(masks)
        arguments |= {"position_ids": kept.position_ids, "attention_mask": masks, "past_key_values": kept.cache}
        logits = self.hf(**arguments, use_cache=True).logits
        if run.keeps:
            kept.read_back(run, self._kept)
        return logits

    def _check_positions(self, position_ids: Tensor) -> None:
        """Refuse what a learned table of positions does not have; rotary positions have no end."""
        table = getattr(self.hf_config, "n_positions", None)
        if table is not None and int(position_ids.max()) >= table:
            raise ValueError(
                f"position {int(position_ids.max())} was asked of {self.model_name}, which has learned {table} "
                "positions; give fewer tokens"
            )

    def _state_after(self, run: Run, before: Any, time: int) -> Any:
        run.after = {name: run.after[name] for name in self.carriers}
        return super()._state_after(run, before, time)


def _mixers(model: Any, family: Family) -> dict[str, Mixer]:
    """Our mixers in `model`, by what they are called in hook names."""
    mixers = {}
    for index, block in enumerate(blocks_of(model, family)):
        for t in family.transplants:
            component = getattr(block, t.slot, None)
            if isinstance(component, nn.Module) and isinstance(component.original_component, Mixer):
                mixers[f"blocks.{index}.{t.name}"] = component.original_component
    return mixers


def _by_layer(item: tuple[str, Any]) -> tuple[int, bool]:
    """Layer by layer, the token mixer first."""
    _, layer, name = item[0].split(".")
    return int(layer), name != "mixer"


def _only(masks: dict[str, Tensor]) -> Tensor:
    (mask,) = masks.values()
    return mask
