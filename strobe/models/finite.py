"""A forward pass whose logits are not numbers says so, and which activation was the first that was not."""

from typing import Any

import torch
from torch import Tensor

from strobe.core.errors import NonFiniteActivation


def check_finite(model: Any, logits: Tensor, inputs: Tensor, mask: Tensor | None, arguments: dict[str, Any]) -> None:
    """Raise NonFiniteActivation, naming the first hook point at fault, if a real token's logits hold NaN.

    Minus infinity is let through: some models mask part of their vocabulary. With gradients on nothing is checked,
    because a training loop looks at its loss and gradients itself (`strobe.models.training`).
    """
    if torch.is_grad_enabled() or bool(torch.isfinite(logits.sum())):
        return
    bad = torch.isnan(logits).any(-1)
    if mask is not None:
        bad &= mask
    if not bool(bad.any()):
        return
    position = int(bad.any(0).nonzero()[0])
    weight = next((n for n, p in model.named_parameters() if not bool(torch.isfinite(p).all())), None)
    where = f"the weight {weight!r} is not finite" if weight else "every weight is finite"
    raise NonFiniteActivation(
        f"the logits of {model.model_name} are NaN from position {position} on; the first activation that is not "
        f"finite is {_first(model, inputs, mask, arguments)!r}, and {where}. Look there, or at what "
        "edits and hooks put in"
    )


def _first(model: Any, inputs: Tensor, mask: Tensor | None, arguments: dict[str, Any]) -> str:
    """The first hook point, in the order of the computation, that is given a value that is not finite."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(value: Any, hook: Any) -> None:
            tensors = value if isinstance(value, tuple) else (value,)
            floats = [
                t if mask is None or t.shape[:2] != mask.shape else t[mask] for t in tensors if t.is_floating_point()
            ]
            if not found and any(bool(torch.isnan(t).any()) or bool(torch.isposinf(t).any()) for t in floats):
                found.append(name)

        return hook

    names = [n for n in model.hook_dict if "hook_carry" not in n and "pattern" not in n and "attn_scores" not in n]
    with model.hooks(fwd_hooks=[(name, look(name)) for name in names]):
        model.forward(inputs, mask=mask, check=False, **arguments)
    return found[0] if found else "the logits themselves"
