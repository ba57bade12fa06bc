"""How a network that was trained by a curriculum bears damage: units silenced by time constant, noise on its weights,
and another N asked of it (Khajehabdollahi et al. 2024, arXiv 2309.12927, perturbations and retraining).

Sizes of the damage are ours. Each number is the accuracy at the largest N that the network solved, which differs
between networks: a network is compared with itself untouched, and with random units of its own.
"""

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strobe.probes.dynamics.case_studies.leaky import Curriculum, LeakyNetwork, ask

# Units silenced together, standard deviation of the noise over that of W's entries, and draws of either.
SILENCED, NOISE, _DRAWS = 4, 0.2, 5
# Steps of N that are skipped in retraining, and the updates it has.
SKIPPED, RETRAINED = 2, 300


class Robustness(NamedTuple):
    """Accuracies at the largest N solved: untouched; with the `SILENCED` units of the largest and of the smallest tau
    at 0, and as many at random (mean over draws); with noise on W. `retrained`: at N + `SKIPPED`, asked of a new
    readout, after `RETRAINED` updates of everything."""

    untouched: float
    slow_silenced: float
    fast_silenced: float
    random_silenced: float
    noisy: float
    retrained: float


def robustness(network: LeakyNetwork, curriculum: Curriculum, n: int, seed: int) -> Robustness:
    """Damage `network`, which solved `n` in `curriculum`, in each way. It is left as it was."""
    order = network.tau.detach().argsort()
    rng = np.random.default_rng((seed, 3))
    random = [torch.from_numpy(rng.permutation(len(order))[:SILENCED]) for _ in range(_DRAWS)]

    def silenced(units: Tensor) -> float:
        scale = torch.ones(len(order))
        scale[units] = 0
        return _accuracy(network, curriculum, n, seed, scale)

    draw, noisy = torch.Generator().manual_seed(seed), []
    for _ in range(_DRAWS):
        other = copy.deepcopy(network)
        with torch.no_grad():
            W = other.W.weight
            W += NOISE * W.std() * torch.randn(W.shape, generator=draw)
        noisy.append(_accuracy(other, curriculum, n, seed))
    return Robustness(
        untouched=_accuracy(network, curriculum, n, seed),
        slow_silenced=silenced(order[-SILENCED:]),
        fast_silenced=silenced(order[:SILENCED]),
        random_silenced=float(np.mean([silenced(units) for units in random])),
        noisy=float(np.mean(noisy)),
        retrained=retrained(network, curriculum, n + SKIPPED, seed),
    )


def retrained(network: LeakyNetwork, curriculum: Curriculum, n: int, seed: int) -> float:
    """Accuracy at `n` alone of a copy of `network` with a new readout, after `RETRAINED` updates."""
    single = replace(curriculum, heads="single")
    other = LeakyNetwork(curriculum.hidden, 1, seed)
    kept = {k: v for k, v in network.state_dict().items() if not k.startswith("heads.")}
    other.load_state_dict(kept | {k: v for k, v in other.state_dict().items() if k.startswith("heads.")})
    optimizer = torch.optim.Adam(other.parameters(), lr=curriculum.learning_rate)
    rng = np.random.default_rng((seed, 4))
    for _ in range(RETRAINED):
        logits, targets = ask(other, single, n, rng, curriculum.batch)
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
        nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        optimizer.step()
    return _accuracy(other, single, n, seed)


@torch.no_grad()
def _accuracy(network: LeakyNetwork, c: Curriculum, n: int, seed: int, scale: Tensor | None = None) -> float:
    """At the head of `n`, on the same 1024 sequences each time."""
    logits, targets = ask(network, c, n, np.random.default_rng((seed, 5)), 1024, scale)
    return float((logits[:, -1].argmax(-1) == targets[:, -1]).double().mean())
