"""Flip-flop networks of `torch.nn`, trained for the benchmark of fixed points and kept in a folder.

None of them is bundled, and none was looked at while the finder's settings were chosen: tanh 32 and 64, GRU 32, 64
and 128, LSTM 64, each with a linear readout, on the 3-bit flip-flop with few pulses (p = 0.15, 64 steps).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from strobe.models.tasks import task

NETWORKS = {
    "tanh 32": (nn.RNN, 32, 3000, 3e-3),
    "tanh 64": (nn.RNN, 64, 3000, 2e-3),
    "GRU 32": (nn.GRU, 32, 3000, 3e-3),
    "GRU 64": (nn.GRU, 64, 2000, 3e-3),
    "GRU 128": (nn.GRU, 128, 1200, 3e-3),
    "LSTM 64": (nn.LSTM, 64, 2000, 5e-3),
}
_BATCH, _TIME, _PULSE = 64, 64, 0.15


class Network(NamedTuple):
    """A recurrence, its readout, and the share of held-out signs it gets right."""

    cell: nn.RNNBase
    readout: nn.Linear
    accuracy: float


def network(name: str, folder: Path, seed: int = 0) -> Network:
    """The network called `name`, from `folder` or trained there."""
    kind, hidden, steps, rate = NETWORKS[name]
    torch.manual_seed(seed)
    cell, readout = kind(3, hidden, batch_first=True), nn.Linear(hidden, 3)
    path = folder / f"{name.replace(' ', '-')}-{seed}.pt"
    if path.exists():
        kept = torch.load(path, weights_only=True)
        cell.load_state_dict(kept["cell"])
        readout.load_state_dict(kept["readout"])
    else:
        _train(cell, readout, steps, rate, seed)
        torch.save({"cell": cell.state_dict(), "readout": readout.state_dict()}, path)
    return Network(cell, readout, _accuracy(cell, readout))


def visited(made: Network, n: int, noise: float = 0.5, seed: int = 1) -> Tensor:
    """`n` carries [n, size] that the network visits, float32, each with normal noise (FixedPointFinder's example)."""
    inputs, _ = _batch(np.random.default_rng(seed + 10_000))
    generator = torch.Generator().manual_seed(seed)
    carry, seen = None, []
    with torch.no_grad():
        for t in range(_TIME):
            _, carry = made.cell(inputs[:, t : t + 1], carry)
            parts = carry if isinstance(carry, tuple) else (carry,)
            seen.append(torch.cat([p[0] for p in parts], -1))
    every = torch.cat(seen)
    chosen = every[torch.randint(len(every), (n,), generator=generator)]
    return chosen + noise * torch.randn(chosen.shape, generator=generator)


def _batch(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    drawn = task("flip_flop").generate(_BATCH, rng, time=_TIME, p=_PULSE)
    return torch.from_numpy(drawn.inputs), torch.from_numpy(drawn.targets)


def _train(cell: nn.RNNBase, readout: nn.Linear, steps: int, rate: float, seed: int) -> None:
    parameters = [*cell.parameters(), *readout.parameters()]
    optimizer = torch.optim.Adam(parameters, rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, rate / 20)
    for step in range(steps):
        inputs, targets = _batch(np.random.default_rng((seed, step)))
        loss = nn.functional.mse_loss(readout(cell(inputs)[0]), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _accuracy(cell: nn.RNNBase, readout: nn.Linear) -> float:
    inputs, targets = _batch(np.random.default_rng(99_999))
    return float((readout(cell(inputs)[0]).sign() == targets).float().mean())
