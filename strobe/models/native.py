"""Native models: embed, blocks (norm, mixer, norm, mlp), norm, unembed. They train, and the zoo is made of them."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from strobe.models import mixers
from strobe.models.config import ModelConfig
from strobe.models.hooked import StateContract, find_carriers
from strobe.models.layers import MLP, make_norm
from strobe.models.mixer import Mixer
from strobe.models.mixers.attention import Attention
from strobe.models.protocol import ModelProtocol
from strobe.models.run import Run


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)); without residuals, mixer(norm(x)) and so on.

    Hooks: ``hook_resid_pre``, ``hook_mixer_in`` (after the norm, as TransformerLens has it), ``hook_mixer_out``,
    ``hook_resid_mid``, ``hook_mlp_out``, ``hook_resid_post``, each [batch, time, d_model]; resid_mid and mlp_out only
    where there is an MLP.
    """

    def __init__(self, config: ModelConfig, name: str) -> None:
        super().__init__()
        kind = mixers.get(name)
        self.residual = config.residual
        self.ln1 = make_norm(config)
        self.mixer = kind(kind.Config(d_model=config.d_model, **config.mixer_options.get(name, {})))
        self.hook_resid_pre, self.hook_mixer_in = HookPoint(), HookPoint()
        self.hook_mixer_out, self.hook_resid_post = HookPoint(), HookPoint()
        self.mlp: MLP | None = None
        if config.mlp != "none":
            self.ln2 = make_norm(config)
            self.mlp = MLP(config.d_model, config.d_mlp, gated=config.mlp == "gated")
            self.hook_resid_mid, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time d_model"]:
        x = self.hook_resid_pre(x)
        mixed = self.hook_mixer_out(self.mixer(self.hook_mixer_in(self.ln1(x))))
        x = x + mixed if self.residual else mixed
        if self.mlp is not None:
            x = self.hook_resid_mid(x)
            out = self.hook_mlp_out(self.mlp(self.ln2(x)))
            x = x + out if self.residual else out
        return self.hook_resid_post(x)


class HookedLM(StateContract, ModelProtocol, HookedRootModule):
    """A native sequence model with hooks and the state contract (`strobe.models.hooked.StateContract`).

    Takes token ids [batch, time] (or real inputs [batch, time, d_input] where the configuration says so) and returns
    logits [batch, time, d_vocab]. Parameters are float32 unless moved.
    """

    def __init__(self, config: ModelConfig, *, tokenizer: Any = None, name: str = "native") -> None:
        super().__init__()
        self.config, self.tokenizer, self.model_name = config, tokenizer, name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self._build(config)
        self.setup()
        self._adopt(find_carriers(self, (Mixer, Attention)))
        self._alias_hooks()

    def _build(self, config: ModelConfig) -> None:
        if config.d_input:
            self.embed: nn.Module = nn.Linear(config.d_input, config.d_model)
        else:
            self.embed = nn.Embedding(config.d_vocab, config.d_model)
            nn.init.normal_(self.embed.weight, std=0.02)
        self.hook_embed = HookPoint()
        self.blocks = nn.ModuleList(Block(config, name) for name in config.layers)
        self.ln_final = make_norm(config)
        self.unembed = nn.Linear(config.d_model, config.d_vocab, bias=False)
        if config.tie_embeddings:
            self.unembed.weight = self.embed.weight
        self._scale_outputs(config)

    def _scale_outputs(self, config: ModelConfig) -> None:
        """Residual writes start smaller by sqrt(2 layers), as in GPT-2, so that depth does not set the scale."""
        for name, parameter in self.named_parameters():
            if name.endswith(("W_O.weight", "W_out.weight", "out_proj.weight")):
                with torch.no_grad():
                    parameter.div_(math.sqrt(2 * len(config.layers)))

    def _forward(self, inputs: Tensor, run: Run) -> Float[Tensor, "batch time d_vocab"]:
        x = self.hook_embed(self.embed(inputs))
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.ln_final(x))

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """The unembedding."""
        return self.unembed.weight.T

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        """The unembedding's bias: none, so zeros."""
        return self.W_U.new_zeros(self.W_U.shape[1])

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """The embedding of token ids. Raises TypeError for a model of real-valued inputs."""
        if not isinstance(self.embed, nn.Embedding):
            raise TypeError(f"{self.model_name} takes real-valued inputs and has no token embedding; see model.embed")
        return self.embed.weight
