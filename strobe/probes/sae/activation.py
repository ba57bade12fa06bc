"""From pre-activations to features: the four nonlinearities, as they are used once an autoencoder is trained."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Kind = Literal["topk", "batchtopk", "jumprelu", "relu"]


def activate(
    pre: Float[Tensor, "*batch d_sae"], kind: Kind, *, k: int | None, threshold: Float[Tensor, " d_sae"] | None
) -> Float[Tensor, "*batch d_sae"]:
    """Features of pre-activations `pre`.

    "topk": ReLU of the `k` largest, 0 elsewhere (Gao et al. 2024). "jumprelu" and "batchtopk": ReLU where `pre` exceeds
    the feature's `threshold` (Rajamanoharan et al. 2024, equation 3); BatchTopK becomes this after training, so that a
    token's features do not depend on the batch it came with (Bussmann et al. 2024, section 3). "relu": ReLU.
    """
    if kind == "relu":
        return torch.relu(pre)
    if kind == "topk":
        assert k is not None
        top = pre.topk(k, dim=-1, sorted=False)
        return torch.zeros_like(pre).scatter(-1, top.indices, torch.relu(top.values))
    assert threshold is not None
    return torch.relu(pre) * (pre > threshold).to(pre.dtype)
