"""The model's own readout: from the residual stream after the last block to logits, checked against the model.

A lens reads intermediate layers through exactly this map (final norm, unembedding, and what some families do to logits
afterwards: soft cap, scale), so it has to be the model's to the last step; a lens through a slightly wrong one looks
plausible.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from strobe.core import hook_names
from strobe.core.tolerances import relative_error

# Relative RMS error of the readout against the model's logits, by the dtype the model computes in: the readout itself
# is float32.
_ALLOWED = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}

# Logits held at a time while reading many tokens: 64 MB in float32.
_CHUNK = 2**24


class Readout:
    """h -> W_U LN_f(h), then the family's own transform of logits. Made by `model_readout`, which checks it.

    Computed in float32 (float64 for a float64 model) whatever the model's dtype, without gradients to the model's
    parameters; gradients reach h.
    """

    def __init__(self, model: Any) -> None:
        self.n_layers, self.d_model, self.d_vocab = model.cfg.n_layers, model.cfg.d_model, model.cfg.d_vocab
        # A Hugging Face model keeps these on TransformerLens's bridge.
        holder = getattr(model, "bridge", model)
        self._modules: list[tuple[nn.Module, dict[str, Tensor]]] = []
        for name in ("ln_final", "unembed"):
            module = getattr(holder, name, None)
            if module is None:
                raise ValueError(
                    f"a lens reads through the final norm and the unembedding; {model.model_name} has no {name!r}; "
                    "give a language model"
                )
            self._modules.append((module, _wide(module)))
        adapter = getattr(holder, "adapter", None)
        self._after: Callable[[Tensor], Tensor] = getattr(adapter, "apply_output_logits_transform", _unchanged)
        # Logits may be cast up after the unembedding; what they are good to is the unembedding's dtype.
        self._computed_in = next(iter(self._modules[1][0].parameters())).dtype
        self.dtype = next(iter(self._modules[1][1].values())).dtype
        self.hash = self._hash()

    def __call__(self, h: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
        """Logits of residual vectors `h`, which are cast to the readout's dtype."""
        x = h.to(self.dtype)
        for module, tensors in self._modules:
            x = functional_call(module, tensors, (x,))
        return self._after(x)

    @property
    def W_U(self) -> Float[Tensor, "d_vocab d_model"]:
        """The unembedding matrix, tokens first, as ``nn.Linear`` keeps it; without the final norm's scale."""
        found = [t for name, t in self._modules[1][1].items() if name.endswith("weight") and t.ndim == 2]
        weight = found[0]
        return weight if weight.shape[0] == self.d_vocab else weight.T

    def chunk_rows(self) -> int:
        """How many tokens to read at a time so that their logits take at most 64 MB."""
        return max(1, _CHUNK // self.d_vocab)

    def check(self, model: Any, resid: Tensor, logits: Tensor) -> None:
        """Raise ValueError unless this readout of `resid` (after the last block) gives the model's own `logits`."""
        with torch.no_grad():
            error = relative_error(self(resid), logits)
        limit = max(_ALLOWED.get(dtype, 0.0) for dtype in (logits.dtype, self._computed_in))
        if not error <= limit:
            raise ValueError(
                f"the readout ln_final -> unembed of {model.model_name} was to give its own logits from the last "
                f"residual; it is {error:.2g} away (relative, in {self._computed_in}; {limit} is allowed). Something "
                "happens between the last block and the logits that this model's ln_final, unembed and adapter do not "
                "say; a lens would be wrong"
            )

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for module, _ in self._modules:
            for _name, t in sorted(module.named_parameters()):
                digest.update(f"{tuple(t.shape)} {t.dtype}".encode())
                digest.update(t.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def model_readout(model: Any) -> Readout:
    """The checked readout of a model that satisfies the state contract: ``readout(resid_post[L-1])`` is the model's
    logits.

    Runs the model once on a few tokens. Raises ValueError if it takes no tokens, has no final norm or unembedding, or
    its logits are not those (what was found, and by how much).
    """
    if getattr(getattr(model, "config", None), "d_input", 0):
        raise ValueError(
            f"a lens reads distributions over tokens; {model.model_name} takes real-valued inputs; use a language model"
        )
    made = Readout(model)
    # Any tokens will do; all different as far as the vocabulary goes, so that no two rows of the check are the same.
    tokens = torch.arange(min(8, model.cfg.n_ctx or 8))[None] % model.cfg.d_vocab
    logits, resid = residuals(model, tokens)
    made.check(model, resid[-1], logits)
    return made


def residuals(model: Any, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(logits [batch, time, d_vocab], resid[0..L], each [batch, time, d_model]) of `tokens` [batch, time].

    ``resid[0]`` enters the first block, ``resid[l]`` leaves block l (counted from 1). Without gradient, in eval mode.
    """
    n = model.cfg.n_layers
    names = [hook_names.resid_pre(layer) for layer in range(n)] + [hook_names.resid_post(n - 1)]
    with evaluating(model), torch.no_grad():
        logits, cache = model.run_with_cache(tokens.to(next(model.parameters()).device), names_filter=names)
    return logits, [cache[name] for name in names]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """`model` in eval mode for the block; afterwards every module is in the mode it was in."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _wide(module: nn.Module) -> dict[str, Tensor]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {
        name: t.detach().to(torch.promote_types(t.dtype, torch.float32)) for name, t in tensors if t.is_floating_point()
    }


def _unchanged(logits: Tensor) -> Tensor:
    return logits
