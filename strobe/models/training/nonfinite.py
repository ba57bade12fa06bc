"""Where a number stopped being one: said at the step it happens, instead of a run that trains on nothing."""

import math

import torch
from torch import Tensor, nn

from strobe.models.training.batches import Batch


class NonFiniteError(ArithmeticError):
    """The loss or a gradient is infinite or not a number; the message says at which step and where first."""


def diagnose(model: nn.Module, inputs: Batch, step: int, loss: float) -> NonFiniteError:
    """The error for a step whose loss or gradient is not finite; gradients must still be in place."""
    weight = _first(n for n, p in model.named_parameters() if not torch.isfinite(p).all())
    gradient = _first(n for n, p in model.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all())
    found = [f"the loss is {loss}" if not math.isfinite(loss) else f"the loss is finite ({loss:.4g})"]
    found.append(f"the first weight that is not finite is {weight!r}" if weight else "every weight is finite")
    found.append(f"the first gradient that is not finite is that of {gradient!r}" if gradient else "no gradient is")
    layer = _first_layer(model, inputs.inputs)
    found.append(
        f"the first layer whose output is not finite is {layer!r}" if layer else "every layer's output is finite"
    )
    if not (weight or gradient or layer):
        found.append("so the loss itself is at fault (are all targets of the batch ignored?)")
    return NonFiniteError(
        f"training stopped at step {step}, before its update: {'; '.join(found)}; "
        "lower the learning rate, clip, or look at that layer. The last checkpoint is from before"
    )


def _first(names) -> str | None:
    return next(iter(names), None)


def _first_layer(model: nn.Module, inputs: Tensor) -> str | None:
    """The first module, in the order of the computation, to return something that is not finite."""
    found: list[str] = []
    names = {id(m): n or type(m).__name__ for n, m in model.named_modules()}

    def look(module: nn.Module, args, output) -> None:
        tensors = output if isinstance(output, tuple | list) else (output,)
        floats = [t for t in tensors if isinstance(t, Tensor) and t.is_floating_point()]
        if not found and not all(bool(torch.isfinite(t).all()) for t in floats):
            found.append(names[id(module)])

    hooks = [m.register_forward_hook(look) for m in model.modules()]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return _first(found)
