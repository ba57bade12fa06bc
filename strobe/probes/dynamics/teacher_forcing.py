"""Generalized teacher forcing of a clipped shallow PLRNN on a series (Hess et al. 2023, arXiv 2306.04406, eq. 2, 4-7).

The network is its own input but for a pull towards the data: it steps from z~_t = (1 - alpha) z_t + alpha x_t, so that
gradients through T steps are damped by (1 - alpha)^T and chaos cannot make them explode. Its latent state is the series
itself here (identity observation, M channels).

`alpha` is fixed (the paper's adaptive choice is not here: it needs the Jacobian products of each batch). RAdam and the
exponential decay of the learning rate are the paper's; lengths and counts are the caller's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from strobe.probes.dynamics.piecewise_linear import PiecewiseLinear, shallow_plrnn

Tick = Callable[[int, int, str], None]


class ClippedPLRNN(nn.Module):
    """z' = A z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1 with diagonal A [M], W1 [M, H], W2 [H, M] (eq. 2)."""

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

    def as_map(self) -> PiecewiseLinear:
        """The same map in float64, for everything exact."""
        parts = (p.detach().double().numpy() for p in (self.A, self.W1, self.W2, self.h1, self.h2))
        return shallow_plrnn(*parts, clipped=True)


@dataclass(frozen=True, kw_only=True)
class Forcing:
    """Settings of a fit. `alpha` in [0, 1]: 0 runs free, 1 is plain teacher forcing. `learning_rates`: first and last.
    `regularisation`: weight of the squared distance of |A|, W1, W2 from 0 (the paper's lambda). `watch_every`: updates
    between two looks; the weights of the best look are kept, because free-running quality goes up and down."""

    hidden: int = 50
    alpha: float = 0.1
    length: int = 100
    batch: int = 16
    updates: int = 6000
    learning_rates: tuple[float, float] = (1e-2, 1e-4)
    regularisation: float = 0.0
    watch_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha} was asked for; it mixes data in, so give 0 to 1")
        for name in ("hidden", "length", "batch", "updates", "watch_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} was asked for; give 1 or more")


class Forced(NamedTuple):
    """A fit: the best map by `watch`, each look's (update, score), and the loss of every update."""

    map: PiecewiseLinear
    scores: Float64[np.ndarray, "looks 2"]
    losses: Float64[np.ndarray, " updates"]


def forced_run(model: nn.Module, x: Float[Tensor, "batch time size"], alpha: float) -> Float[Tensor, "batch rest size"]:
    """Predictions of x[:, 1:], each from z~ = (1 - alpha) z + alpha x (eq. 4); the first step is from the data."""
    z = x[:, 0]
    out = []
    for t in range(x.shape[1] - 1):
        z = model(z if t == 0 else torch.lerp(z, x[:, t], alpha))
        out.append(z)
    return torch.stack(out, 1)


def fit_by_forcing(
    series: Float32[np.ndarray, "time size"] | Float64[np.ndarray, "time size"],
    forcing: Forcing,
    watch: Callable[[PiecewiseLinear], float],
    progress: Tick | None = None,
) -> Forced:
    """Fit a `ClippedPLRNN` to `series` (standardise it first) and keep the map for which `watch` is smallest.

    `watch(map)` says how bad the free-running map is. Raises ValueError for a series shorter than one window, one that
    is not finite, or a fit for which `watch` was never finite.
    """
    series = np.asarray(series, dtype=np.float32)
    if len(series) <= forcing.length + 1 or not np.isfinite(series).all():
        raise ValueError(
            f"a series of {len(series)} steps was given for windows of {forcing.length + 1}; give a longer one, "
            "of finite numbers"
        )
    model = ClippedPLRNN(series.shape[1], forcing.hidden, forcing.seed)
    first, last = forcing.learning_rates
    optimizer = torch.optim.RAdam(model.parameters(), lr=first)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, (last / first) ** (1 / forcing.updates))
    rng, windows = np.random.default_rng(forcing.seed), torch.from_numpy(series).unfold(0, forcing.length + 1, 1)
    best, best_score, scores, losses = model.as_map(), np.inf, [], np.empty(forcing.updates)
    for update in range(forcing.updates):
        rows = rng.integers(len(windows), size=forcing.batch)
        x = windows[torch.from_numpy(rows)].mT
        loss = (forced_run(model, x, forcing.alpha) - x[:, 1:]).square().mean()
        penalty = sum(w.square().sum() for w in (model.W1, model.W2)) + model.A.square().sum()
        optimizer.zero_grad()
        (loss + forcing.regularisation * penalty).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        losses[update] = float(loss.detach())
        if (update + 1) % forcing.watch_every == 0 or update + 1 == forcing.updates:
            found = model.as_map()
            score = float(watch(found))
            scores.append((update + 1, score))
            if score < best_score:
                best, best_score = found, score
        if progress is not None:
            progress(update + 1, forcing.updates, f"loss {losses[update]:.3g}")
    if not np.isfinite(best_score):
        raise ValueError(
            f"no look at the fit was finite in {forcing.updates} updates (the map runs away or leaves the data); "
            "raise alpha or lower the learning rate"
        )
    return Forced(best, np.array(scores, dtype=np.float64), losses)
