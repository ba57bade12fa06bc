"""The loss of each kind of autoencoder, on inputs scaled to a mean squared distance of d_in from their mean.

    loss = |x - x'|^2 / d_in + sparsity + aux |e - e'|^2 / |e|^2

e = x - x' is the error, and e' its reconstruction by the most active of the dead features (Gao et al. 2024, section
A.2), which is what revives them. The sparsity term is the features' sum for ReLU (Bricken et al. 2023) and their number
for JumpReLU (Rajamanoharan et al. 2024, equation 9); TopK and BatchTopK need none.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from strobe.probes.sae.config import SaeConfig
from strobe.probes.sae.sparse import SparseDecode, TopKEncode, kept_from


class Weights(NamedTuple):
    """What the loss reads. `log_threshold`: of JumpReLU, so that a threshold stays positive."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    log_threshold: Tensor | None


class Loss(NamedTuple):
    """`total` is differentiable. `error`: of the reconstruction, per coordinate. `l0`: features a vector. `fired`: in
    the batch. `smallest`: activation that was kept, which is BatchTopK's threshold."""

    total: Tensor
    error: Tensor
    l0: Tensor
    fired: Bool[Tensor, " d_sae"]
    smallest: Tensor


def loss_of(x: Float[Tensor, "n d_in"], w: Weights, config: SaeConfig, dead: Bool[Tensor, " d_sae"]) -> Loss:
    """The loss of a batch; `dead` features are those that the auxiliary loss may use."""
    centred = x - w.b_dec
    penalty = smallest = x.new_zeros(())
    if config.kind == "topk":
        values, index = TopKEncode.apply(centred, w.W_enc, w.b_enc, config.k)
        out = SparseDecode.apply(values, index, w.W_dec)
        fired = torch.zeros(config.d_sae, dtype=torch.bool, device=x.device)
        fired[index[values > 0]] = True
        l0 = (values > 0).sum() / len(x)
    else:
        features, count = _features(torch.addmm(w.b_enc, centred, w.W_enc), w, config)
        if config.kind == "relu":
            penalty = config.sparsity * features.sum(1).mean()
        elif config.kind == "jumprelu":
            penalty = config.sparsity * count.sum(1).mean()
        out = features @ w.W_dec
        active = features.detach() > 0
        fired, l0 = active.any(0), active.sum() / len(x)
        if config.kind == "batchtopk":
            smallest = kept_from(features.detach(), config.k * len(x))
    left = centred - out
    error = left.square().mean()
    total = error + penalty
    if config.aux and bool(dead.any()):
        total = total + config.aux * _auxiliary(centred.detach(), left.detach(), w, config, dead)
    return Loss(total, error.detach(), l0.detach(), fired, smallest)


def _features(pre: Tensor, w: Weights, config: SaeConfig) -> tuple[Tensor, Tensor]:
    """(features, how many count as active: differentiable in the threshold for JumpReLU)."""
    if config.kind == "batchtopk":
        positive = torch.relu(pre)
        features = positive * (positive >= kept_from(positive.detach(), config.k * len(pre)))
        return features, features
    if config.kind == "jumprelu":
        assert w.log_threshold is not None
        return JumpReLU.apply(pre, w.log_threshold.exp(), config.bandwidth)
    return torch.relu(pre), pre


def _auxiliary(x: Tensor, left: Tensor, w: Weights, config: SaeConfig, dead: Tensor) -> Tensor:
    """How badly the dead features reconstruct what is `left`: 1 where they say nothing."""
    which = dead.nonzero()[:, 0]
    pre = torch.addmm(w.b_enc[which], x, w.W_enc[:, which])
    k = min(config.aux_k or x.shape[1] // 2 or 1, len(which))
    top = pre.topk(k, dim=1, sorted=False)
    features = torch.zeros_like(pre).scatter(1, top.indices, torch.relu(top.values))
    return (left - features @ w.W_dec[which]).square().sum() / left.square().sum().clamp(min=1e-12)


class JumpReLU(torch.autograd.Function):
    """(pre, threshold, bandwidth) -> (pre where it exceeds the threshold, 1 there).

    Straight-through estimators with a rectangular kernel K (Rajamanoharan et al. 2024, equations 10 and 11): the
    gradient to the threshold of the first is -threshold / bandwidth K((pre - threshold) / bandwidth), and of the second
    -1 / bandwidth K(...).
    """

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        """Values and step."""
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        step = (pre > threshold).to(pre.dtype)
        return pre * step, step

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Gradients of pre and of the threshold."""
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() < ctx.bandwidth / 2).to(pre.dtype) / ctx.bandwidth
        to_threshold = -(grads[0] * threshold + grads[1]) * near
        return grads[0] * (pre > threshold), to_threshold.sum(0), None
