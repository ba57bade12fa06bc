"""Two curricula for one memory task: N-parity and N-DMS by leaky units whose time constants are learned.

Khajehabdollahi et al. 2024, "Emergent mechanisms for long timescales depend on training curriculum and affect
performance in memory tasks" (ICLR; arXiv 2309.12927):

    h_t = (1 - 1/tau) h_{t-1} + (1/tau) f(W h_{t-1} + U x_t + b)          f: leaky ReLU (slope .1), tau_i >= 1 learned

*Single-head*: one readout, solve N, then N + 1 alone. *Multi-head*: a readout for each n up to N, all kept. The paper
finds that single-head training lengthens both tau and the network's timescale, and multi-head training drives tau to 1
and lengthens the network's alone.

N-parity: the parity of the last N bits. N-DMS (delayed match to sample): does the bit now equal that N - 1 steps ago?
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torch.nn import functional as F

from strobe.probes.dynamics.kept_run import KeptRun

Problem = Literal["parity", "dms"]
Heads = Literal["single", "multi"]

SOLVED = 0.98
"""Accuracy at which the curriculum goes on (the paper's)."""


class LeakyNetwork(nn.Module):
    """Leaky units with learned time constants; the module's docstring has the equation. `raw_tau` [H]: tau is 1 plus
    its softplus, so that no unit is faster than a step (ours; the paper clips)."""

    def __init__(self, hidden: int, heads: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.W, self.U = nn.Linear(hidden, hidden), nn.Linear(1, hidden, bias=False)
            self.heads = nn.Linear(hidden, 2 * heads)
            self.raw_tau = nn.Parameter(torch.full((hidden,), 0.5413) + 0.1 * torch.randn(hidden))

    @property
    def tau(self) -> Float[Tensor, " hidden"]:
        """Time constants in steps."""
        return 1 + F.softplus(self.raw_tau)

    def forward(
        self, bits: Float[Tensor, "batch time"], scale: Float[Tensor, " hidden"] | None = None
    ) -> Float[Tensor, "batch time hidden"]:
        """The h at every step; `bits` are -1 or 1. `scale` multiplies each unit's activity at every step."""
        rate = 1 / self.tau
        h = bits.new_zeros(len(bits), self.W.in_features)
        driven = self.U(bits.unsqueeze(-1))
        out = []
        for x in driven.unbind(1):
            h = torch.lerp(h, F.leaky_relu(self.W(h) + x, 0.1), rate)
            h = h if scale is None else h * scale
            out.append(h)
        return torch.stack(out, 1)

    def answers(self, h: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch heads 2"]:
        """Logits of "even / no" and "odd / yes" of every head."""
        return self.heads(h).unflatten(-1, (-1, 2))


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Settings of a run: it ends when `most` is solved or after `updates`. `extra`: steps of the sequence beyond N."""

    problem: Problem = "parity"
    heads: Heads = "single"
    most: int = 12
    hidden: int = 64
    updates: int = 4000
    batch: int = 128
    extra: int = 8
    learning_rate: float = 2e-3
    check_every: int = 50
    seed: int = 0


class Stage(NamedTuple):
    """When N was solved: after how many `updates`, with which mean and largest time constant."""

    n: int
    updates: int
    mean_tau: float
    largest_tau: float


class Learned(NamedTuple):
    """A finished run: the network, its stages, and the accuracy at each of its heads or at its N."""

    network: LeakyNetwork
    stages: list[Stage]
    accuracy: Float64[np.ndarray, " n"]
    updates: int


def answers(problem: Problem, bits: np.ndarray, n: int) -> np.ndarray:
    """The answer at the last step of each row of `bits` (0 or 1)."""
    if problem == "parity":
        return bits[:, -n:].sum(1) % 2
    return (bits[:, -1] == bits[:, -n]).astype(np.int64)


def learn(curriculum: Curriculum, run: KeptRun | None = None) -> Learned:
    """Train a network through the curriculum, from N = 2; `run`: where it is kept and goes on from.

    Sequences are N + 0..`extra` steps long, so that the number of steps does not give N away (as in the paper).
    """
    c = curriculum
    network = LeakyNetwork(c.hidden, c.most + 1 if c.heads == "multi" else 1, c.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=c.learning_rate)
    rng, run = np.random.default_rng(c.seed), run or KeptRun(None)
    name = f"{c.heads}-head {c.problem}, seed {c.seed}"
    loop = run.loop(name, c.updates, vars(c), network=network, optimizer=optimizer, rng=rng)
    stages = loop.noted({"stages": []})["stages"]
    for update in loop:
        n = 2 + len(stages)
        logits, targets = ask(network, c, n, rng, c.batch)
        optimizer.zero_grad()
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if (update + 1) % c.check_every == 0:
            while n <= c.most and float(_accuracy(network, c, n, rng).min()) >= SOLVED:
                tau = network.tau.detach()
                stages.append([n, update + 1, float(tau.mean()), float(tau.max())])
                n += 1
            if n > c.most:
                loop.finish()
        loop.did(float(loss.detach()), f"{name}, N = {min(n, c.most)}")
    reached = min(2 + len(stages), c.most)
    return Learned(network, [Stage(*s) for s in stages], _accuracy(network, c, reached, rng), loop.step)


@torch.no_grad()
def noise_driven(network: LeakyNetwork, trials: int, time: int, seed: int) -> Float64[np.ndarray, "trials time hidden"]:
    """Activity under random bits, after 50 steps that are thrown away: what timescales are measured on."""
    rng = np.random.default_rng((seed, 1))
    bits = torch.from_numpy(rng.integers(2, size=(trials, time + 50)) * 2.0 - 1).float()
    return network(bits)[:, 50:].double().numpy()


def ask(
    network: LeakyNetwork,
    c: Curriculum,
    n: int,
    rng: np.random.Generator,
    batch: int,
    scale: Float[Tensor, " hidden"] | None = None,
) -> tuple[Tensor, Tensor]:
    """Logits [batch, heads asked, 2] at the last step of fresh sequences, and the answers [batch, heads asked]."""
    bits = rng.integers(2, size=(batch, n + int(rng.integers(c.extra + 1))))
    asked = range(2, n + 1) if c.heads == "multi" else [n]
    targets = np.stack([answers(c.problem, bits, k) for k in asked], 1)
    logits = network.answers(network(torch.from_numpy(bits * 2.0 - 1).float(), scale)[:, -1])
    logits = logits[:, 2 : n + 1] if c.heads == "multi" else logits
    return logits, torch.from_numpy(targets)


@torch.no_grad()
def _accuracy(network: LeakyNetwork, c: Curriculum, n: int, rng: np.random.Generator) -> Float64[np.ndarray, " n"]:
    """Share of right answers at each head asked (one for a single head), on 512 sequences."""
    logits, targets = ask(network, c, n, rng, 512)
    return (logits.argmax(-1) == targets).double().mean(0).numpy()
