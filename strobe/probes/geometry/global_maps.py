"""Tokenwise maps fitted once over all tokens of the bank: a small MLP, a linear baseline, and what knows no token.

All predict the update. The bank's last sequences are kept back to choose the penalty and to stop the MLP; the linear
map is then fitted again to all of it.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Map = Callable[[Tensor], Tensor]
"""Vectors [token, d_model] to their predicted updates, of the same shape."""

# Penalties of the linear map, in units of the mean square of a coordinate summed over tokens.
LINEAR_RIDGES = (1e-10, 1e-6, 1e-4, 1e-2)
_KEPT_BACK = 0.2
_BATCH, _RATE, _MAX_EPOCHS, _PATIENCE = 128, 1e-3, 60, 5


def kept_back(sequence: Int[Tensor, " bank"]) -> Tensor:
    """Which tokens of the bank [bank] are kept back: those of its last fifth of sequences, at least one."""
    every = sequence.unique()
    last = every[-max(1, round(_KEPT_BACK * len(every))) :]
    held = torch.isin(sequence, last)
    if bool(held.all()):
        raise ValueError(
            "a fifth of the bank's sequences is kept back to choose penalties by; found one sequence; give more"
        )
    return held


def constant(x: Float[Tensor, "bank d_model"], y: Float[Tensor, "bank d_model"]) -> Map:
    """The bank's mean update, whatever the token: what a map does that knows nothing of it."""
    mean = (y - x).mean(0)
    return lambda q: mean.expand_as(q)


def linear(x: Float[Tensor, "bank d_model"], y: Float[Tensor, "bank d_model"], held: Tensor) -> tuple[Map, float]:
    """(ridge regression of the updates with an intercept, the penalty that the tokens kept back chose)."""
    from sklearn.linear_model import Ridge

    given, wanted = x.cpu().numpy(), (y - x).cpu().numpy()
    back = held.cpu().numpy()
    unit = float(np.square(given - given.mean(0)).sum() / given.shape[1]) or 1.0

    def fit(ridge: float, rows: np.ndarray) -> Ridge:
        return Ridge(alpha=ridge * unit, solver="cholesky").fit(given[rows], wanted[rows])

    errors = [np.square(fit(r, ~back).predict(given[back]) - wanted[back]).sum() for r in LINEAR_RIDGES]
    chosen = LINEAR_RIDGES[int(np.argmin(errors))]
    model = fit(chosen, np.ones(len(given), dtype=bool))
    weight = torch.as_tensor(np.atleast_2d(model.coef_)).to(x)
    bias = torch.as_tensor(np.atleast_1d(model.intercept_)).to(x)
    return (lambda q: q @ weight.mT + bias), chosen


def mlp(x: Float[Tensor, "bank d_model"], y: Float[Tensor, "bank d_model"], held: Tensor, seed: int) -> Map:
    """A two-layer network of d_model hidden units (GELU) on standardised vectors, Adam, stopped by the tokens kept
    back. In float32; gradients of nothing else are touched."""
    d = x.shape[1]
    shift, scale = x.mean(0), x.std(0).clamp_min(torch.finfo(torch.float32).tiny)
    size = (y - x).square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    given, wanted = ((x - shift) / scale).float(), ((y - x) / size).float()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        last = nn.Linear(d, d)
        # Starts as a constant update, so that stopping at once says "nothing to learn" and not noise.
        nn.init.zeros_(last.weight)
        net = nn.Sequential(nn.Linear(d, d), nn.GELU(), last).to(given)
        _fit(net, given, wanted, held, torch.Generator().manual_seed(seed))
    return lambda q: net(((q - shift) / scale).float()).detach().to(q) * size


def _fit(net: nn.Module, given: Tensor, wanted: Tensor, held: Tensor, order: torch.Generator) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=_RATE)
    rows = (~held).nonzero()[:, 0].cpu()
    best, since, kept = float("inf"), 0, {n: p.detach().clone() for n, p in net.state_dict().items()}
    for _ in range(_MAX_EPOCHS):
        for batch in rows[torch.randperm(len(rows), generator=order)].split(_BATCH):
            loss = nn.functional.mse_loss(net(given[batch]), wanted[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            now = float(nn.functional.mse_loss(net(given[held]), wanted[held]))
        if now < best:
            best, since, kept = now, 0, {n: p.detach().clone() for n, p in net.state_dict().items()}
        else:
            since += 1
            if since == _PATIENCE:
                break
    net.load_state_dict(kept)
