"""The clipped shallow PLRNN and its run under generalized teacher forcing (Hess et al. 2023, arXiv 2306.04406).

The network is its own input but for a pull towards the data: it steps from z~_t = (1 - alpha) z_t + alpha x_t (eq. 4),
so that gradients through T steps are damped by (1 - alpha)^T and chaos cannot make them explode.

A step multiplies matrices of a few numbers, and autograd's bookkeeping for each costs more than the arithmetic. The
gradient of a whole run is therefore written out here, three times as fast on one thread: only the state's own part of
it goes back step by step, and those of the weights are one product over all steps at once.

Shape letters: T steps, B sequences, M dimensions (the observed ones: identity observation), H hidden units.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from strobe.probes.dynamics.piecewise_linear import PiecewiseLinear, shallow_plrnn

Series = Float32[np.ndarray, "time size"] | Float64[np.ndarray, "time size"]

# Of the squared weights in the regression that starts a fit: only keeps units that never open from being undetermined.
_RIDGE = 1e-6


class ClippedPLRNN(nn.Module):
    """z' = A z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1 with diagonal A [M], W1 [M, H], W2 [H, M] (eq. 2).

    Its orbits stay bounded while |A| < 1. Drawn as in the authors' code, but for A = 0.9 (ours).
    """

    def __init__(self, size: int, hidden: int, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)

        def uniform(*shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(*shape, generator=draw) - 1) / shape[-1] ** 0.5)

        self.A = nn.Parameter(torch.full((size,), 0.9))
        self.W1, self.W2 = uniform(size, hidden), uniform(hidden, size)
        self.h1, self.h2 = nn.Parameter(torch.zeros(size)), uniform(hidden)

    def forward(self, z: Float[Tensor, "batch size"]) -> Float[Tensor, "batch size"]:
        """One step."""
        before = z @ self.W2.T
        return self.A * z + (torch.relu(before + self.h2) - torch.relu(before)) @ self.W1.T + self.h1

    def jacobian(self, z: Float[Tensor, "batch size"]) -> Float[Tensor, "batch size size"]:
        """dz'/dz at each point, without a gradient to the weights."""
        with torch.no_grad():
            before = z @ self.W2.T
            slope = (before + self.h2 > 0).to(z.dtype) - (before > 0).to(z.dtype)
            return torch.diag(self.A) + (self.W1 * slope[:, None]) @ self.W2

    def regress(self, series: Series, *, reach: float | int = 2.0, seed: int = 0) -> None:
        """Start near `series`: thresholds within `reach` of its units (standardise it), then A, W1, h1 by regression of
        each step on the one before. Ours: drawn as the authors do, nearly every kink lies at the origin.
        """
        from sklearn.linear_model import Ridge

        rng, z = np.random.default_rng(seed), np.asarray(series[:-1], dtype=np.float64)
        W2 = self.W2.detach().double().numpy()
        h2 = rng.uniform(-reach, reach, len(W2)) * np.linalg.norm(W2, axis=1)
        opened = np.maximum(z @ W2.T + h2, 0) - np.maximum(z @ W2.T, 0)
        with torch.no_grad():
            self.h2.copy_(torch.from_numpy(h2))
            for m in range(len(self.A)):
                line = Ridge(alpha=_RIDGE).fit(np.column_stack([z[:, m], opened]), series[1:, m])
                self.A[m], self.h1[m] = float(line.coef_[0]), float(line.intercept_)
                self.W1[m] = torch.from_numpy(line.coef_[1:])

    def as_map(self) -> PiecewiseLinear:
        """The same map in float64, for everything exact."""
        parts = (p.detach().double().numpy() for p in (self.A, self.W1, self.W2, self.h1, self.h2))
        return shallow_plrnn(*parts, clipped=True)


def forced_run(
    model: ClippedPLRNN, x: Float[Tensor, "batch time size"], alpha: float | int
) -> Float[Tensor, "batch rest size"]:
    """Predictions of x[:, 1:], each from z~ = (1 - alpha) z + alpha x (eq. 4); the first step is from the data.

    On the CPU. Gradients to the weights and to `x` are exact, once; a gradient of them raises RuntimeError.
    """
    run = _Run.apply(x.transpose(0, 1), alpha, model.A, model.W1, model.W2, model.h1, model.h2)
    return run.transpose(0, 1)


def adaptive_alpha(model: ClippedPLRNN, x: Float[Tensor, "batch time size"]) -> float:
    """max(0, 1 - 1 / sigma), at which the product of Jacobians neither grows nor shrinks, for the sequence of `x` that
    grows most. sigma: geometric mean along it of the spectral norms of the Jacobians at the data, a bound on the norm
    of their product (the authors' code calls it the product upper bound)."""
    norms = torch.linalg.matrix_norm(model.jacobian(x.flatten(0, 1)), ord=2).view(x.shape[:2])
    # A map without any slope has no growth to damp, and its logarithm no value.
    sigma = float(norms.clamp_min(torch.finfo(x.dtype).tiny).log().mean(1).exp().max())
    return max(0.0, 1 - 1 / sigma)


class _Run(torch.autograd.Function):
    """x [T + 1, B, M] to predictions [T, B, M]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: float | int, *weights: Tensor) -> Tensor:
        data = x.detach().numpy()
        A, W1, W2, h1, h2 = (w.detach().numpy() for w in weights)
        steps, batch, size = len(data) - 1, *data.shape[1:]
        out, mixed = np.empty((2, steps, batch, size), data.dtype)
        before = np.empty((steps, batch, len(h2)), data.dtype)
        W1_t, W2_t, pull, z = W1.T.copy(), W2.T.copy(), alpha * data, data[0]
        for t in range(steps):
            mixed[t] = z if t == 0 else (1 - alpha) * z + pull[t]
            u = np.matmul(mixed[t], W2_t, out=before[t])
            z = A * mixed[t] + (np.maximum(u + h2, 0) - np.maximum(u, 0)) @ W1_t + h1
            out[t] = z
        ctx.alpha, ctx.seen = alpha, (mixed, before, A, W1, W2, h2)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grads: Tensor
    ) -> tuple[Tensor | None, ...]:
        mixed, before, A, W1, W2, h2 = ctx.seen
        error, alpha = grads[0].numpy(), ctx.alpha
        shifted = before + h2
        opened = (shifted > 0).astype(error.dtype)
        slope = opened - (before > 0)
        to_out, to_mixed = np.empty_like(mixed), np.empty_like(mixed)
        later = np.zeros_like(error[0])
        for t in range(len(error) - 1, -1, -1):
            g = to_out[t] = error[t] + later
            to_mixed[t] = A * g + ((g @ W1) * slope[t]) @ W2
            later = (1 - alpha) * to_mixed[t]
        g, z = to_out.reshape(-1, len(A)), mixed.reshape(-1, len(A))
        back, active = g @ W1, np.maximum(shifted, 0) - np.maximum(before, 0)
        to_weights = (
            (g * z).sum(0),
            g.T @ active.reshape(len(g), -1),
            (back * slope.reshape(len(g), -1)).T @ z,
            g.sum(0),
            (back * opened.reshape(len(g), -1)).sum(0),
        )
        to_x = np.concatenate([to_mixed[:1], alpha * to_mixed[1:], np.zeros_like(error[:1])])
        return torch.from_numpy(to_x), None, *map(torch.from_numpy, to_weights)
