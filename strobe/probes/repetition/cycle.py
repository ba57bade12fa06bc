"""The linearised k-step map of a layer's carry around a loop of k tokens, its inputs held to the loop's.

While the same k tokens come again and again, a model's carry follows a map of its own; the greedy choice is constant
around it, so this is the map's linearisation there. A layer reads only what lies below it, so the Jacobian of the whole
carry is block-triangular with one block a layer, and its eigenvalues are those of the layers with their inputs held
(short windows forget within their width and add zeros). The whole model's radius is its layers' largest.
Ours; the eigenvalues are found in float64. Layers linear in their carry: the product of the transitions A_t. Others:
the derivative of k steps of the family's definition.
"""

from typing import Any

import torch
from torch import Tensor

# Numbers of a carry whose dense Jacobian is worked out.
_LIMIT = 2048


def spectral_radius(mixer: Any, inputs: Any, memory: Any, start: int, period: int) -> tuple[float, str]:
    """(largest modulus of the eigenvalues of the map from the memory before token `start` to that after the next
    `period`, ""), or (NaN, why it was not worked out).

    `inputs`: the family's signals [1, time, ...]. `memory`: the family's carry before token `start`, of a batch of 1.
    """
    family = mixer.family
    held = family.slice(_double(inputs, family), start, start + period)
    if family.transition is not None:
        return _linear_radius(family.transition(held), period), ""
    memory = type(memory)(*(x.double() for x in memory))
    size = sum(x.numel() for x in memory)
    if size > _LIMIT:
        return float("nan"), f"its carry has {size} numbers, and a Jacobian of at most {_LIMIT} is worked out"
    shapes = [x.shape for x in memory]

    def around(flat: Tensor) -> Tensor:
        carry = type(memory)(*(x.view(s) for x, s in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)))
        for t in range(period):
            carry, _ = family.step(family.at(held, t), carry)
        return torch.cat([x.flatten() for x in carry])

    jacobian = torch.func.jacrev(around)(torch.cat([x.flatten() for x in memory]))
    assert isinstance(jacobian, Tensor)
    return float(torch.linalg.eigvals(jacobian).abs().max()), ""


def _linear_radius(transition: Any, period: int) -> float:
    if transition.left is None:
        # Diagonal: a product of decays for each number of the memory.
        return float(transition.decay.abs().log().sum(1).max().exp())
    product = None
    operators = transition.operator(transition.left.shape[-2])[0]
    for t in range(period):
        product = operators[t] if product is None else operators[t] @ product
    assert product is not None
    return float(torch.linalg.eigvals(product).abs().max())


def _double(signals: Any, family: Any) -> Any:
    return type(signals)(
        *(x.detach().double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in signals)
    )
