"""The final norm with its scale held at the value it had: linear in the residual stream, so it can be shared out.

    RMS:    N(h) = w * h / s + b                 s = rms(h)
    layer:  N(h) = w * (h - mean h) / s + b      s = rms(h - mean h)

Which of the two a model has, its weight (some families store w - 1) and its bias are found by asking the module itself,
and what was found is checked against the module at the very vectors that are attributed: no architecture is assumed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from strobe.core.tolerances import relative_error

# Large enough that no norm's epsilon matters beside it.
_LOUD = 1e3
_ALLOWED = 1e-4


class FrozenNorm(NamedTuple):
    """``weight * center(x) / scale`` for any part x of the residual vectors it was frozen at; `bias` is theirs as a
    whole. `scale` has the shape of those vectors with a last axis of 1."""

    weight: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    scale: Tensor
    centered: bool

    def __call__(self, part: Tensor) -> Tensor:
        """The share that `part` [..., d_model] has in the normalised vectors."""
        return self.weight * self.unscaled(part) / self.scale

    def unscaled(self, part: Tensor) -> Tensor:
        """`part`, centred where the norm centres: what goes on to be scaled and weighed."""
        return part - part.mean(-1, keepdim=True) if self.centered else part


def freeze_norm(model: Any, h: Float[Tensor, "*batch d_model"]) -> FrozenNorm:
    """The final norm of `model`, its scale held at what it is for the residual vectors `h`.

    In float32, or float64 for a float64 model. Raises ValueError for a norm that is neither of the two (and not the
    identity).
    """
    norm = _final_norm(model, h)
    probe = torch.ones_like(h[..., :1, :].flatten(0, -2)[:1])
    probe[..., 1::2] = -1
    probe = probe - probe.mean(-1, keepdim=True)
    plus, minus = norm(_LOUD * probe)[0], norm(-_LOUD * probe)[0]
    bias = (plus + minus) / 2
    weight = (plus - minus) / 2 * probe[0].pow(2).mean().sqrt() / probe[0]
    after = norm(h)
    errors = {}
    for centered in (False, True):
        held = FrozenNorm(weight, bias, torch.ones_like(h[..., :1]), centered)
        shape, target = held(h), after - bias
        held = held._replace(scale=shape.pow(2).sum(-1, keepdim=True) / (shape * target).sum(-1, keepdim=True))
        errors[centered] = relative_error(held(h) + bias, after)
        if errors[centered] <= _ALLOWED:
            return held
    raise ValueError(
        f"the scale of the final norm of {model.model_name} was to be held; its ln_final is neither an RMS norm "
        f"({errors[False]:.2g} away, relative) nor a layer norm ({errors[True]:.2g}): logits cannot be shared out "
        "through it"
    )


def _final_norm(model: Any, like: Tensor) -> Callable[[Tensor], Tensor]:
    # A Hugging Face model keeps it on TransformerLens's bridge.
    module = getattr(getattr(model, "bridge", model), "ln_final", None)
    if module is None:
        raise ValueError(f"attribution goes through the final norm; {model.model_name} has no 'ln_final'")
    tensors = [*module.named_parameters(), *module.named_buffers()]
    wide = {n: t.detach().to(like.dtype) for n, t in tensors if t.is_floating_point()}

    def apply(x: Tensor) -> Tensor:
        with torch.no_grad():
            return functional_call(module, wide, (x,))

    return apply
