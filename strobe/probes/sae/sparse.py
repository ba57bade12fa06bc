"""TopK encoding and decoding with gradients that touch only the features that fired.

With k of d_sae features active, decoding and both weights' gradients are sums of k rows a token; dense products would
spend their time on zeros. The numbers are those of the dense operations, which the tests compare them with.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


class TopKEncode(torch.autograd.Function):
    """(x [n, d_in], W_enc [d_in, d_sae], b_enc [d_sae], k) -> (ReLU of the k largest pre-activations, indices)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W_enc: Tensor, b_enc: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k largest of each row."""
        pre = torch.addmm(b_enc, x, W_enc)
        index = top_indices(pre, k)
        values = torch.relu(pre.gather(1, index))
        ctx.save_for_backward(x, W_enc, index, values)
        ctx.mark_non_differentiable(index)
        return values, index

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Gradients of x, W_enc and b_enc."""
        x, W_enc, index, values = ctx.saved_tensors
        active = torch.where(values > 0, grads[0], 0.0)
        d_sae = W_enc.shape[1]
        to_weight = summed_rows(index, active, x, d_sae).T
        to_bias = torch.zeros_like(W_enc[0]).index_add_(0, index.flatten(), active.flatten())
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = F.embedding_bag(index, W_enc.T.contiguous(), per_sample_weights=active, mode="sum")
        return to_x, to_weight, to_bias, None


class SparseDecode(torch.autograd.Function):
    """(values [n, k], indices [n, k], W_dec [d_sae, d_in]) -> sum of values times rows, [n, d_in]."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, index: Tensor, W_dec: Tensor) -> Tensor:
        """The sum over each token's features."""
        ctx.save_for_backward(values, index, W_dec)
        return F.embedding_bag(index, W_dec, per_sample_weights=values, mode="sum")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Gradients of the values and of W_dec."""
        values, index, W_dec = ctx.saved_tensors
        to_values = (grads[0] @ W_dec.T).gather(1, index)
        return to_values, None, summed_rows(index, values, grads[0], W_dec.shape[0])


def summed_rows(
    index: Int[Tensor, "n k"], values: Float[Tensor, "n k"], rows: Float[Tensor, "n d"], count: int
) -> Float[Tensor, "count d"]:
    """out[i] = sum over (t, j) with index[t, j] = i of values[t, j] rows[t]: a bag of rows for each feature."""
    flat, k = index.flatten(), index.shape[1]
    order = torch.argsort(flat)
    starts = torch.bincount(flat, minlength=count).cumsum(0).roll(1)
    starts[0] = 0
    tokens = torch.div(order, k, rounding_mode="floor")
    return F.embedding_bag(tokens, rows, starts, per_sample_weights=values.flatten()[order], mode="sum")


def kept_from(features: Float[Tensor, "n d_sae"], count: int) -> Float[Tensor, ""]:
    """The `count`-th largest of all numbers, those below zero taken as zero."""
    if features.device.type != "cpu":
        return features.flatten().topk(count, sorted=False).values.min().clamp(min=0)
    flat = features.numpy().ravel()
    return torch.from_numpy(np.partition(flat, flat.size - count)[flat.size - count : flat.size - count + 1])[0].clamp(
        min=0
    )


def top_indices(pre: Float[Tensor, "n d_sae"], k: int) -> Int[Tensor, "n k"]:
    """Indices of the k largest of each row, in no order."""
    if pre.device.type != "cpu":
        return pre.topk(k, dim=1, sorted=False).indices
    # On a CPU numpy's partition is more than twice as fast as torch's topk, which was most of a training step.
    cut = pre.shape[1] - k
    if cut == 0:
        return torch.arange(k).expand(pre.shape[0], k)
    return torch.from_numpy(np.argpartition(pre.detach().numpy(), cut, axis=1)[:, cut:].copy())
