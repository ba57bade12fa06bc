"""What TransformerLens's tools ask of a model, for native models: `cfg`, tokens in and out, hook aliases.

With it `ActivationCache`, `transformer_lens.patching` and the logit-lens helpers work on a native model unchanged.
"""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from strobe.models.config import ModelConfig


class ModelProtocol(nn.Module):
    """Mixed into a native model; see the module's docstring."""

    config: ModelConfig
    tokenizer: Any
    model_name: str
    blocks: Any
    hook_dict: dict[str, Any]
    mod_dict: dict[str, nn.Module]
    tokenize: Any
    W_U: Any

    @cached_property
    def cfg(self) -> Any:
        """A TransformerLens configuration record."""
        from transformer_lens import TransformerBridgeConfig

        attention = next((o for n, o in self.config.mixer_options.items() if n.startswith("attention")), {})
        heads = attention.get("n_heads", 1)
        return TransformerBridgeConfig(
            d_model=self.config.d_model,
            d_head=self.config.d_model // heads,
            n_heads=heads,
            n_layers=len(self.config.layers),
            n_ctx=self.config.n_ctx,
            d_vocab=self.config.d_vocab,
            d_mlp=self.config.d_mlp or None,
            act_fn="silu" if self.config.mlp == "gated" else "gelu",
            normalization_type="RMS",
            model_name=self.model_name,
            architecture="HookedLM",
            eps=self.config.norm_eps,
            seed=self.config.seed,
        )

    def _alias_hooks(self) -> None:
        """Second names: ``hook_attn_out`` where the mixer is attention, block-level names of mixer states."""
        for i, block in enumerate(self.blocks):
            prefix = f"blocks.{i}"
            block.hook_out_is_single_residual_stream = True
            aliases = {f"{prefix}.hook_out": block.hook_resid_post, f"{prefix}.hook_in": block.hook_resid_pre}
            if self.config.layers[i].startswith("attention"):
                aliases[f"{prefix}.hook_attn_out"] = block.hook_mixer_out
            for name in [n for n in self.hook_dict if n.startswith(f"{prefix}.mixer.hook_state")]:
                aliases[name.replace(".mixer.", ".")] = self.hook_dict[name]
            for name, ours in getattr(block.mixer, "ssm_aliases", {}).items():
                aliases[f"{prefix}.mixer.{name}"] = self.hook_dict[f"{prefix}.mixer.{ours}"]
            self.hook_dict.update(aliases)
            self.mod_dict.update(aliases)

    def to_tokens(self, text: str | list[str], prepend_bos: bool | None = None, **_: Any) -> Tensor:
        """Token ids [batch, time]; rows of different length are padded on the right with id 0 (see `tokenize`)."""
        tokens, _mask = self.tokenize(text)
        if prepend_bos:
            bos = torch.full((tokens.shape[0], 1), self._bos(), dtype=tokens.dtype, device=tokens.device)
            tokens = torch.cat([bos, tokens], 1)
        return tokens

    def _bos(self) -> int:
        if self.tokenizer is None or self.tokenizer.bos_token_id is None:
            raise ValueError(f"{self.model_name} has no beginning-of-text token; call with prepend_bos=False")
        return self.tokenizer.bos_token_id

    def to_string(self, tokens: Any) -> str | list[str]:
        """Text of token ids [time], or a list of texts for [batch, time]."""
        tokens = torch.as_tensor(tokens)
        if tokens.ndim == 2:
            return [str(self.to_string(row)) for row in tokens]
        return self._need_tokenizer().decode(tokens.tolist())

    def to_str_tokens(self, inputs: Any, **_: Any) -> list[str]:
        """Each token's text, for a text or token ids [time] or [1, time]."""
        tokens = self.to_tokens(inputs) if isinstance(inputs, str) else torch.as_tensor(inputs)
        return [str(self.to_string(t[None])) for t in tokens.flatten()]

    def to_single_token(self, text: str) -> int:
        """The id of `text`. Raises ValueError if it is not exactly one token."""
        ids = self._need_tokenizer().encode(text, add_special_tokens=False)
        if len(ids) != 1:
            raise ValueError(f"{text!r} is {len(ids)} tokens in {self.model_name}, not one")
        return ids[0]

    def to_single_str_token(self, token: int) -> str:
        """The text of one token id."""
        return str(self.to_string([token]))

    def _need_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ValueError(f"{self.model_name} came without a tokenizer, so it takes token ids, not text")
        return self.tokenizer

    def tokens_to_residual_directions(self, tokens: Any) -> Tensor:
        """The unembedding vectors of `tokens` (ids, or one text that is one token): [..., d_model]."""
        ids = torch.as_tensor(self.to_single_token(tokens) if isinstance(tokens, str) else tokens)
        return self.W_U.T[ids]

    def accumulated_bias(self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True) -> Tensor:
        """The output biases of the mixers before `layer` (and of its own, with `mlp_input`); MLPs have none."""
        total = torch.zeros(self.config.d_model, device=self.W_U.device, dtype=self.W_U.dtype)
        for block in self.blocks[: layer + int(mlp_input)]:
            bias = getattr(getattr(block.mixer, "out_proj", None), "bias", None)
            total = total if bias is None else total + bias
        return total
