"""Generalized teacher forcing of a clipped shallow PLRNN on a series (Hess et al. 2023, arXiv 2306.04406, eq. 2, 4-7).

The run itself is `forced_run`; here it is fitted. The latent state is the series itself (identity observation, M
channels). RAdam, the exponential decay of the learning rate and the adaptive alpha are the paper's and its code's
(DurstewitzLab/GTF-shPLRNN): alpha begins at 1, rises at once to what a batch asks for, and falls slowly. The start by
regression, the norm that gradients are cut to, and the look that is kept are ours; lengths and counts are the caller's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import nn

from strobe.probes.dynamics.forced_run import ClippedPLRNN, Series, adaptive_alpha, forced_run
from strobe.probes.dynamics.kept_run import KeptRun
from strobe.probes.dynamics.piecewise_linear import PiecewiseLinear

# Of the authors' code: how slowly alpha falls, and updates between two estimates of it.
_FALL, _ALPHA_EVERY = 0.999, 5


@dataclass(frozen=True, kw_only=True)
class Forcing:
    """Settings of a fit. `alpha`: "adaptive", or fixed in [0, 1]: 0 runs free, 1 is plain teacher forcing. `start`:
    "regression" (ours) or "random" (the authors' draw). `learning_rates`: first and last. `regularisation`: weight of
    the squared distance of |A|, W1, W2 from 0 (the paper's lambda). `watch_every`: updates between two looks; the
    weights of the best look are kept, because free-running quality goes up and down."""

    hidden: int = 100
    alpha: float | int | str = "adaptive"
    start: str = "regression"
    length: int = 100
    batch: int = 16
    updates: int = 10_000
    learning_rates: tuple[float, float] = (1e-3, 1e-6)
    regularisation: float = 0.0
    watch_every: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        known = self.alpha == "adaptive" if isinstance(self.alpha, str) else 0 <= self.alpha <= 1
        if not known:
            raise ValueError(f"alpha={self.alpha} was asked for; it mixes data in, so give 0 to 1, or 'adaptive'")
        if self.start not in ("regression", "random"):
            raise ValueError(f"start={self.start!r} was asked for; there are 'regression' and 'random'")
        for name in ("hidden", "length", "batch", "updates", "watch_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} was asked for; give 1 or more")


class Forced(NamedTuple):
    """A fit: the best map by `watch`, the map it began from, each look's (update, score), and the loss and the alpha of
    every update."""

    map: PiecewiseLinear
    start: PiecewiseLinear
    scores: Float64[np.ndarray, "looks 2"]
    losses: Float64[np.ndarray, " updates"]
    alphas: Float64[np.ndarray, " updates"]


def fit_by_forcing(
    series: Series,
    forcing: Forcing,
    watch: Callable[[PiecewiseLinear], float],
    *,
    run: KeptRun | None = None,
    name: str = "generalized teacher forcing",
) -> Forced:
    """Fit a `ClippedPLRNN` to `series` (standardise it first) and keep the map for which `watch` is smallest.

    `watch(map)` says how bad the free-running map is. `run`: where the fit, as its training `name`, is kept, says how
    far it is and goes on from (it has to be given the same series and the same `watch` then). Raises ValueError for a
    series shorter than one window, one that is not finite, or a fit for which `watch` was never finite.
    """
    series = np.asarray(series, dtype=np.float32)
    if len(series) <= forcing.length + 1 or not np.isfinite(series).all():
        raise ValueError(
            f"a series of {len(series)} steps was given for windows of {forcing.length + 1}; give a longer one, "
            "of finite numbers"
        )
    model = ClippedPLRNN(series.shape[1], forcing.hidden, forcing.seed)
    if forcing.start == "regression":
        model.regress(series, seed=forcing.seed)
    start = model.as_map()
    first, last = forcing.learning_rates
    optimizer = torch.optim.RAdam(model.parameters(), lr=first)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, (last / first) ** (1 / forcing.updates))
    rng, windows = np.random.default_rng(forcing.seed), torch.from_numpy(series).unfold(0, forcing.length + 1, 1)
    run = run or KeptRun(None)
    settings = {**vars(forcing), "learning_rates": list(forcing.learning_rates)}
    loop = run.loop(name, forcing.updates, settings, model=model, optimizer=optimizer, schedule=schedule, rng=rng)
    alpha = 1.0 if isinstance(forcing.alpha, str) else float(forcing.alpha)
    notes = loop.noted({"alphas": [], "scores": [], "best": None})
    best, best_score = _best_of(notes, series.shape[1], forcing, start)
    for update in loop:
        x = windows[torch.from_numpy(rng.integers(len(windows), size=forcing.batch))].mT
        alpha = notes["alphas"][-1] if notes["alphas"] else alpha
        if forcing.alpha == "adaptive" and update % _ALPHA_EVERY == 0:
            alpha = next_alpha(alpha, adaptive_alpha(model, x[:, 1:]))
        loss = (forced_run(model, x, alpha) - x[:, 1:]).square().mean()
        penalty = sum(w.square().sum() for w in (model.W1, model.W2)) + model.A.square().sum()
        optimizer.zero_grad()
        (loss + forcing.regularisation * penalty).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        notes["alphas"].append(float(alpha))
        if (update + 1) % forcing.watch_every == 0 or update + 1 == forcing.updates:
            found = model.as_map()
            score = float(watch(found))
            notes["scores"].append([update + 1, score])
            if score < best_score:
                best, best_score = found, score
                notes["best"] = {key: value.clone() for key, value in model.state_dict().items()}
        loop.did(float(loss.detach()), f"{name}, loss {float(loss.detach()):.3g}")
    if not np.isfinite(best_score):
        raise ValueError(
            f"no look at the fit was finite in {forcing.updates} updates (the map runs away or leaves the data); "
            "raise alpha or lower the learning rate"
        )
    scores = np.array(notes["scores"], dtype=np.float64)
    return Forced(best, start, scores, np.array(loop.losses), np.array(notes["alphas"]))


def _best_of(
    notes: dict[str, Any], size: int, forcing: Forcing, start: PiecewiseLinear
) -> tuple[PiecewiseLinear, float]:
    """The best map that a fit which goes on had come to, and its score; of one that begins `start`, and infinity."""
    if notes["best"] is None:
        return start, float("inf")
    model = ClippedPLRNN(size, forcing.hidden)
    model.load_state_dict(notes["best"])
    return model.as_map(), min(score for _, score in notes["scores"])


def next_alpha(alpha: float | int, asked: float | int) -> float:
    """`asked` where it is above `alpha`, else a step of one part in a thousand down towards it."""
    return float(asked if asked > alpha else _FALL * alpha + (1 - _FALL) * asked)
