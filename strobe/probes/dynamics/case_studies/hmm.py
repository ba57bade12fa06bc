"""A ReLU network driven by noise alone that emits like a hidden Markov model: orbits, zones and kick units.

Torre et al. 2025, "Mechanistic interpretability of RNNs emulating hidden Markov models" (arXiv 2510.25674): no bias,
white noise in, a hard Gumbel-softmax sample out at each step, trained on the Sinkhorn divergence between batches of its
sequences and the chain's. They find that without noise the network settles in one fixed point, that noise sustains
orbits around it, and that a few *kick units* carry it from one state's region to the next.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from strobe.core.provenance import Provenance
from strobe.probes.dynamics.case_studies.forward_algorithm import symbol_costs
from strobe.probes.dynamics.case_studies.result import CaseStudy
from strobe.probes.dynamics.case_studies.sinkhorn import sinkhorn_divergence
from strobe.probes.dynamics.kept_run import KeptRun

# Two states that stay with .95; state 0 emits symbol 0, state 1 symbol 2, and symbol 1 is rare in both (the paper's).
TRANSITION = np.array([[0.95, 0.05], [0.05, 0.95]])
EMISSION = np.array([[0.99, 0.01, 0.0], [0.0, 0.01, 0.99]])
DWELL, TRANSIT = 8, 2
"""Steps until the likeliest symbol changes: above the first a dwell zone, below the second a transition zone, between
them the kick zone (the paper's)."""


class NoiseDriven(nn.Module):
    """h_t = relu(W h_{t-1} + U noise_t), logits V h_t; no bias anywhere."""

    def __init__(self, hidden: int, noise: int, symbols: int = 3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.W = nn.Parameter(torch.randn(hidden, hidden) / hidden**0.5)
            self.U = nn.Parameter(torch.randn(hidden, noise) / noise**0.5)
            self.V = nn.Parameter(torch.randn(symbols, hidden) / hidden**0.5)

    def forward(
        self, noise: Float[Tensor, "batch time noise"], h: Tensor | None = None, scale: Tensor | None = None
    ) -> Float[Tensor, "batch time hidden"]:
        """The h at every step; `scale` [hidden] multiplies each unit's activity (the causal test)."""
        h = noise.new_zeros(len(noise), self.W.shape[0]) if h is None else h
        driven, out = noise @ self.U.T, []
        for x in driven.unbind(1):
            h = torch.relu(h @ self.W.T + x)
            h = h if scale is None else h * scale
            out.append(h)
        return torch.stack(out, 1)


def chain(batch: int, time: int, rng: np.random.Generator) -> np.ndarray:
    """Symbols [batch, time] of the chain, from a uniform start."""
    state, out = rng.integers(2, size=batch), np.empty((batch, time), dtype=np.int64)
    for t in range(time):
        out[:, t] = (rng.random((batch, 1)) > EMISSION[state].cumsum(1)[:, :-1]).sum(1)
        state = np.where(rng.random(batch) < TRANSITION[state, 1], 1, 0)
    return out


def train(
    hidden: int, noise: int, steps: int, time_steps: int, batch: int, seed: int, run: KeptRun | None = None
) -> tuple[NoiseDriven, np.ndarray]:
    """The network and its loss at every update. Adam with the paper's betas (.9, .9) and clipping at .9. `run`: where
    it is kept and goes on from."""
    network = NoiseDriven(hidden, noise, seed=seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.9, 0.9))
    draw, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    settings = {"hidden": hidden, "noise": noise, "time": time_steps, "batch": batch, "seed": seed}
    name = f"noise-driven network, seed {seed}"
    holds = {"network": network, "optimizer": optimizer, "draw": draw, "rng": rng}
    loop = (run or KeptRun(None)).loop(name, steps, settings, **holds)
    for _ in loop:
        target = F.one_hot(torch.from_numpy(chain(batch, time_steps, rng)), 3).float().flatten(1)
        h = network(torch.randn(batch, time_steps, noise, generator=draw))
        gumbel = -torch.log(-torch.log(torch.rand(batch, time_steps, 3, generator=draw).clamp(1e-6, 1 - 1e-6)))
        soft = (h @ network.V.T + gumbel).softmax(-1)
        hard = F.one_hot(soft.argmax(-1), 3).float()
        # The sample goes out hard and the gradient comes back soft (straight-through).
        loss = sinkhorn_divergence((hard + soft - soft.detach()).flatten(1), target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 0.9)
        optimizer.step()
        loop.did(float(loss.detach()), f"Sinkhorn divergence {float(loss.detach()):.3g}")
    return network, np.array(loop.losses)


@torch.no_grad()
def emitted(network: NoiseDriven, batch: int, time: int, seed: int) -> tuple[np.ndarray, Tensor]:
    """Symbols [batch, time], sampled as in training, and the states [batch, time, hidden] they came from."""
    draw = torch.Generator().manual_seed(seed)
    h = network(torch.randn(batch, time, network.U.shape[1], generator=draw))
    gumbel = -torch.log(-torch.log(torch.rand(batch, time, 3, generator=draw).clamp(1e-6, 1 - 1e-6)))
    return (h @ network.V.T + gumbel).argmax(-1).numpy(), h


def statistics(symbols: np.ndarray) -> list[float]:
    """Frequency of each symbol, and how often the end symbols 0 and 2 change into each other over those in a row."""
    ends = symbols[:, :-1], symbols[:, 1:]
    both = (ends[0] != 1) & (ends[1] != 1)
    switches = float((ends[0] != ends[1])[both].mean()) if both.any() else float("nan")
    return [*(float((symbols == k).mean()) for k in range(3)), switches]


def cost(symbols: np.ndarray) -> float:
    """Mean nats that a symbol costs one who knows the chain, from the 20th step on."""
    return float(symbol_costs(symbols, TRANSITION, EMISSION, np.full(2, 0.5))[:, 20:].mean())


@torch.no_grad()
def residency(
    network: NoiseDriven, states: Float[Tensor, "n hidden"], rollouts: int, most: int, seed: int
) -> np.ndarray:
    """Mean steps [n] until the likeliest symbol changes, over `rollouts` with fresh noise, at most `most` each."""
    draw = torch.Generator().manual_seed(seed)
    start = states.repeat_interleave(rollouts, 0)
    h = network(torch.randn(len(start), most, network.U.shape[1], generator=draw), start)
    changed = (h @ network.V.T).argmax(-1) != (start @ network.V.T).argmax(-1)[:, None]
    first = torch.where(changed.any(1), changed.int().argmax(1) + 1, most)
    return first.view(len(states), rollouts).double().mean(1).numpy()


@torch.no_grad()
def switch_rate(network: NoiseDriven, scale: Float[Tensor, " hidden"], seed: int, batch: int = 64) -> float:
    """How often the likeliest symbol changes in a step, with each unit's activity multiplied by `scale`."""
    draw = torch.Generator().manual_seed(seed)
    h = network(torch.randn(batch, 150, network.U.shape[1], generator=draw), scale=scale)[:, 50:]
    best = (h @ network.V.T).argmax(-1)
    return float((best[:, 1:] != best[:, :-1]).float().mean())


def make(
    *,
    hidden: int = 64,
    noise: int = 10,
    steps: int = 900,
    time_steps: int = 40,
    batch: int = 192,
    seed: int = 0,
    run: KeptRun | None = None,
) -> CaseStudy:
    """Train, then look: symbols, the fixed point without noise, orbits against noise, zones, kick units.

    `run`: where the training is kept and goes on from.
    """
    run = run or KeptRun(None)
    run.total = steps
    network, losses = train(hidden, noise, steps, time_steps, batch, seed, run)
    run.tick("measuring")
    untrained, rng = NoiseDriven(hidden, noise, seed=seed), np.random.default_rng((seed, 1))
    said = {
        "the chain itself": chain(512, 100, rng),
        "this network": emitted(network, 512, 100, seed)[0],
        "untrained (control)": emitted(untrained, 512, 100, seed)[0],
    }
    rows = [[name, *statistics(symbols), cost(symbols)] for name, symbols in said.items()]
    states = _visited(network, seed)
    spread = _ends_without_noise(network, states)
    stds = [0.0, 0.1, 0.5, 1.0, 2.0, 3.0, 4.0]
    orbits = {n: _radii(net, stds, seed) for n, net in (("trained", network), ("untrained (control)", untrained))}
    stay = residency(network, states[:: max(1, len(states) // 400)], 20, 50, seed)
    zones = _zones(stay)
    others = _visited(untrained, seed)
    untrained_zones = _zones(residency(untrained, others[:: max(1, len(others) // 400)], 20, 50, seed))
    kicks, kick_rows, ratio = _kick_units(network, seed)
    switch, truth = rows[1][4], rows[0][4]
    return CaseStudy(
        name="hmm",
        title="Noise-sustained orbits of a network that emits like a hidden Markov model",
        paper="Torre et al. 2025, arXiv 2510.25674",
        claim="Without noise the network rests in one fixed point; noise sustains orbits; a few kick units carry it "
        "between the regions of the states.",
        found=f"The ends change into each other at {switch:.3f} a step (chain {truth:.3f}), and a symbol costs "
        f"{rows[1][5]:.3f} nats under the chain (one of the chain's own {rows[0][5]:.3f}; less is more regular, as "
        f"where rare symbols are missing). Without noise "
        f"{'all starts end in one place' if spread[1] < 1e-3 else 'starts end in more than one place'} (spread "
        f"{spread[1]:.2g} from {spread[0]:.2g} at the start). Orbits grow with the noise, which "
        f"a network of ReLUs without bias cannot help: it is positively homogeneous, and the untrained one does it "
        f"too. "
        f"{zones[0]:.0%} of the visited "
        f"states dwell, {zones[1]:.0%} are in the kick zone, {zones[2]:.0%} in transition (untrained: "
        f"{untrained_zones[0]:.0%}, {untrained_zones[1]:.0%}, {untrained_zones[2]:.0%}). Silencing units {kicks} "
        f"changes the switching rate {ratio:.1f} times as much as random triplets do.",
        ours=f"{hidden} units, {noise} noise inputs, {steps} updates of {batch} sequences of {time_steps} steps "
        f"where the "
        "paper makes 30,000 sequences x 500 epochs; a Sinkhorn of our own; kick units are found by silencing each unit "
        "and taking the three that change the switching rate most, not by the sign structure of the weights.",
        tables=[
            {
                "title": "What is emitted",
                "columns": ["source", "symbol 0", "symbol 1", "symbol 2", "switches", "cost (nats)"],
                "rows": rows,
                "note": "Frequencies, changes between symbols 0 and 2 a step, and what a symbol costs one who knows "
                "the chain. What its own cost is the floor of any prediction of the chain, and no bound for what "
                "another source emits. Control: the untrained network.",
            },
            {
                "title": "Visited states by how long the likeliest symbol stays",
                "columns": ["network", "dwell zone", "kick zone", "transition zone"],
                "rows": [["this network", *zones], ["untrained (control)", *untrained_zones]],
                "note": f"Shares of states; above {DWELL} steps, {TRANSIT} to {DWELL}, below {TRANSIT}, mean of 20 "
                "roll-outs of at most 50 steps. Control: the untrained network.",
            },
            {
                "title": "Switching rate with the kick units' activity scaled",
                "columns": ["scale", "kick units", "random triplets, mean (control)", "their standard deviation"],
                "rows": kick_rows,
                "note": "Control: random triplets of units. Measured under noise that the search for the units did "
                "not use.",
            },
        ],
        curves=orbits,
        x_title="standard deviation of the noise",
        y_title="orbit radius (root mean square distance from the mean state)",
        weights={k: v.detach().numpy() for k, v in network.named_parameters()} | {"losses": losses, "residency": stay},
        seconds=run.seconds,
        provenance=Provenance(
            model="noise-driven ReLU network",
            seed=seed,
            settings={"hidden": hidden, "noise": noise, "steps": steps, "time": time_steps, "batch": batch},
            control="the untrained network; random triplets of units",
        ),
    )


def _visited(network: NoiseDriven, seed: int) -> Tensor:
    """States [n, hidden] of 64 runs after 50 steps."""
    return emitted(network, 64, 100, seed + 1)[1][:, 50:].flatten(0, 1)


def _zones(stay: np.ndarray) -> list[float]:
    """Shares of states in the dwell, the kick and the transition zone."""
    dwell, transit = float((stay > DWELL).mean()), float((stay < TRANSIT).mean())
    return [dwell, float(((stay >= TRANSIT) & (stay <= DWELL)).mean()), transit]


@torch.no_grad()
def _ends_without_noise(network: NoiseDriven, states: Tensor) -> tuple[float, float]:
    """Spread of up to 100 visited states, and of where they are after 500 steps without noise."""
    h = start = states[:: max(1, len(states) // 100)]
    for _ in range(500):
        h = torch.relu(h @ network.W.T)
    return float((start - start.mean(0)).norm(dim=1).mean()), float((h - h.mean(0)).norm(dim=1).mean())


@torch.no_grad()
def _radii(network: NoiseDriven, stds: list[float], seed: int) -> np.ndarray:
    noise = torch.randn(32, 200, network.U.shape[1], generator=torch.Generator().manual_seed(seed))
    out = []
    for std in stds:
        h = network(std * noise)[:, 100:].flatten(0, 1)
        out.append([std, float((h - h.mean(0)).square().sum(1).mean().sqrt())])
    return np.array(out)


def _kick_units(network: NoiseDriven, seed: int) -> tuple[list[int], list[list[float]], float]:
    """The three units whose silence changes the switching rate most, the rates under scaling, and the ratio of the
    change to that of random triplets."""
    hidden = network.W.shape[0]

    def scaled(units: list[int], by: float, draw: int) -> float:
        scale = torch.ones(hidden)
        scale[units] = by
        return switch_rate(network, scale, draw)

    base = scaled([], 1.0, seed)
    change = [abs(scaled([unit], 0.0, seed) - base) for unit in range(hidden)]
    kicks = np.argsort(change)[::-1][:3].tolist()
    rng = np.random.default_rng(seed)
    triplets = [rng.choice(hidden, 3, replace=False).tolist() for _ in range(12)]
    rows = []
    for by in (0.0, 0.5, 1.0, 1.5, 2.0):
        others = [scaled(t, by, seed + 7) for t in triplets]
        rows.append([by, scaled(kicks, by, seed + 7), float(np.mean(others)), float(np.std(others))])
    fresh = rows[2][1]
    usual = float(np.mean([abs(scaled(t, 0.0, seed + 7) - fresh) for t in triplets]))
    return kicks, rows, abs(rows[0][1] - fresh) / max(usual, 1e-9)
