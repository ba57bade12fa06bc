"""The Sinkhorn divergence between two batches of points (Feydy et al. 2019, "Interpolating between optimal transport
and MMD using Sinkhorn divergences"; the debiased loss that geomloss has made familiar).

    S(a, b) = OT_eps(a, b) - (OT_eps(a, a) + OT_eps(b, b)) / 2           cost |x - y|^2 / 2, eps = blur^2

It is 0 for equal batches, and half the squared distance of two single points.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def sinkhorn_divergence(
    x: Float[Tensor, "n features"], y: Float[Tensor, "m features"], *, blur: float = 0.2, scaling: float = 0.5
) -> Float[Tensor, ""]:
    """S between the uniform measures on the rows of `x` and `y`; the gradient reaches both.

    The regularisation falls from the squared diameter to ``blur ** 2`` by ``scaling ** 2`` an iteration, and the last
    iteration alone is differentiated: at the optimum the potentials contribute nothing to the gradient.
    """
    with torch.no_grad():
        span = float(torch.cat([x, y]).amax(0).sub(torch.cat([x, y]).amin(0)).norm())
    scales, eps = [], max(span, blur) ** 2
    while eps > blur**2:
        scales.append(eps)
        eps *= scaling**2
    scales += [blur**2] * 3
    return _transport(x, y, scales) - (_transport(x, x, scales) + _transport(y, y, scales)) / 2


def _transport(x: Tensor, y: Tensor, scales: list[float]) -> Tensor:
    """<a, f> + <b, g> of the entropic problem, potentials by symmetric updates in the log domain.

    f is differentiated as a function of x and g of y: each with the other would count the plan's gradient twice.
    """
    with torch.no_grad():
        cost = _cost(x, y)
        f, g = cost.new_zeros(len(x)), cost.new_zeros(len(y))
        for eps in scales:
            f, g = (f + _softmin(cost, g, eps)) / 2, (g + _softmin(cost.T, f, eps)) / 2
    eps = scales[-1]
    return _softmin(_cost(x, y.detach()), g, eps).mean() + _softmin(_cost(y, x.detach()), f, eps).mean()


def _cost(x: Tensor, y: Tensor) -> Tensor:
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp_min(0) / 2


def _softmin(cost: Tensor, potential: Tensor, eps: float) -> Tensor:
    return -eps * torch.logsumexp((potential - cost) / eps - math.log(cost.shape[1]), 1)
