"""`linearly_recurrent_autoencoder`: learn the functions of the state in which it advances linearly (LRAN).

Otto & Rowley 2019, "Linearly recurrent autoencoder networks for learning dynamics" (SIAM J. Appl. Dyn. Syst. 18),
eq. 3.1-3.3: encoder psi, a matrix K, decoder; the loss sums the relative error of the decoded and of the encoded state
over a window, discounted by delta^t. The eigenvalues of K are those of the dynamics as far as psi holds them. Their
reduction of K by balanced truncation is not here; width and layers of the maps are ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from strobe.core.provenance import Provenance
from strobe.probes.dynamics.koopman import DynamicModes, held_out_errors

Tick = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Autoencoding:
    """Settings of a fit. `observables`: size of psi. `window`: steps predicted in the loss, discounted by `discount`;
    `encoded`: weight of the encoded state's error (the paper's beta)."""

    observables: int = 8
    hidden: int = 64
    window: int = 10
    discount: float = 0.95
    encoded: float | int = 1.0
    updates: int = 1500
    batch: int = 64
    learning_rate: float = 3e-3
    seed: int = 0


def linearly_recurrent_autoencoder(
    series: Float64[np.ndarray, "runs time features"],
    settings: Autoencoding | None = None,
    *,
    dt: float | int = 1.0,
    held_out: float = 0.25,
    horizons: tuple[int, ...] = (1, 2, 5, 10),
    system: str = "series",
    provenance: Provenance | None = None,
    progress: Tick | None = None,
) -> DynamicModes:
    """Fit to the first part of each run and predict the last `held_out` of it, beside persistence.

    Raises ValueError for runs too short for the window or the horizons, or a series that is not finite.
    """
    settings = settings or Autoencoding()
    runs, time, features = series.shape
    cut = time - round(held_out * time)
    if cut <= settings.window or time - cut <= max(horizons) or not np.isfinite(series).all():
        raise ValueError(
            f"{runs} runs of {time} steps with {held_out:.0%} held out were given for windows of {settings.window} and "
            f"horizons up to {max(horizons)}; give longer runs of finite numbers"
        )
    mean, scale = series[:, :cut].mean((0, 1)), series[:, :cut].std() or 1.0
    x = torch.from_numpy((series - mean) / scale).float()
    encode, decode, K = _maps(features, settings)
    _fit(x[:, :cut], encode, decode, K, settings, progress)

    def ahead(psi: np.ndarray, steps: int) -> np.ndarray:
        with torch.no_grad():
            found = decode(torch.from_numpy(psi) @ torch.linalg.matrix_power(K.detach(), steps).T)
        return found.double().numpy() * scale + mean

    with torch.no_grad():
        encoded = encode(x[:, cut:]).numpy()
    errors, persistence = held_out_errors(series[:, cut:], encoded, ahead, horizons)
    eigenvalues = np.linalg.eigvals(K.detach().double().numpy()).astype(np.complex128)
    return DynamicModes(
        system=system,
        method=f"LRAN, {settings.observables} learned functions",
        eigenvalues=eigenvalues[np.argsort(-np.abs(eigenvalues), kind="stable")],
        modes=np.zeros((0, features), dtype=np.complex128),
        horizons=np.array(horizons, dtype=np.int64),
        errors=errors,
        persistence=persistence,
        dt=float(dt),
        provenance=Provenance(
            model=provenance.model if provenance else system,
            weights_hash=provenance.weights_hash if provenance else None,
            seed=settings.seed,
            settings={**vars(settings), "held_out": held_out, "runs": runs, "dt": float(dt)},
            control="persistence: the prediction that nothing changes",
        ),
    )


def _maps(features: int, settings: Autoencoding) -> tuple[nn.Module, nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encode = nn.Sequential(
            nn.Linear(features, settings.hidden), nn.Tanh(), nn.Linear(settings.hidden, settings.observables)
        )
        decode = nn.Sequential(
            nn.Linear(settings.observables, settings.hidden), nn.Tanh(), nn.Linear(settings.hidden, features)
        )
    return encode, decode, nn.Parameter(torch.eye(settings.observables) * 0.95)


def _fit(
    x: Tensor, encode: nn.Module, decode: nn.Module, K: Tensor, settings: Autoencoding, progress: Tick | None
) -> None:
    optimizer = torch.optim.Adam([*encode.parameters(), *decode.parameters(), K], lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.updates)
    rng, last = np.random.default_rng(settings.seed), x.shape[1] - settings.window
    discount = settings.discount ** torch.arange(settings.window + 1)
    for update in range(settings.updates):
        run = torch.from_numpy(rng.integers(len(x), size=settings.batch))
        start = torch.from_numpy(rng.integers(last, size=settings.batch))
        window = x[run[:, None], start[:, None] + torch.arange(settings.window + 1)]
        psi = encode(window)
        made = [psi[:, 0]]
        for _ in range(settings.window):
            made.append(made[-1] @ K.T)
        rolled = torch.stack(made, 1)
        loss = (discount * _relative(decode(rolled), window)).mean()
        # At lag 0 the two encodings are the same tensor and say nothing.
        ahead = discount[:-1] * _relative(rolled[:, 1:], psi[:, 1:])
        loss = loss + settings.encoded * ahead.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(update + 1, settings.updates, f"loss {float(loss.detach()):.3g}")


def _relative(found: Tensor, truth: Tensor) -> Tensor:
    """Squared error over squared size, [batch, time]; a small number keeps a state at 0 from dividing by 0."""
    return (found - truth).square().sum(-1) / (truth.square().sum(-1) + 1e-3)
