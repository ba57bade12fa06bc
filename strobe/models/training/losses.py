"""The two losses of the bundled models. A loss takes the model's output and the targets and returns one number."""

from collections.abc import Callable

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""A target that is not scored, as in torch and transformers."""

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Float[Tensor, "batch time vocab"], targets: Int64[Tensor, "batch time"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats over the targets that are not `IGNORED`, in float32.

    Not a number where every target is ignored, which `train` reports.
    """
    return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def mean_squared_error(
    outputs: Float[Tensor, "batch time channels"], targets: Float[Tensor, "batch time channels"]
) -> Float[Tensor, ""]:
    """Mean squared difference over everything, in float32."""
    return functional.mse_loss(outputs.float(), targets.float())
