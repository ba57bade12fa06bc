"""Abrupt learning of the 3-bit flip-flop: fixed points before and after the jump, with and without a consistency term.

Haputhanthri et al. 2025, "Understanding and controlling the geometry of memory organization in RNNs" (arXiv
2502.07256): a plateau, then a *geometric restructuring* in which slow points and attractors appear, then the jump in
accuracy; a temporal-consistency regulariser that penalises moving states makes it come earlier.

The form of the regulariser here is ours, lambda times the mean of |h_{t+1} - h_t|^2 over batch, time and units.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from strobe.core.provenance import Provenance
from strobe.models.tasks import task
from strobe.probes.dynamics.case_studies.result import CaseStudy
from strobe.probes.fixed_points import fixed_points, from_module

Tick = Callable[[int, int, str], None]

_FLIP_FLOP = task("flip_flop")


def make(
    *,
    hidden: int = 16,
    updates: int = 400,
    every: int = 25,
    strengths: tuple[float, ...] = (0.0, 0.03, 0.3),
    p: float = 0.1,
    learning_rate: float = 5e-3,
    seeds: int = 2,
    n_initial: int = 96,
    progress: Tick | None = None,
) -> CaseStudy:
    """Train tanh networks with each regulariser and `seeds` seeds; search the first seed's fixed points on the way."""
    began, rows, curves, weights = time.process_time(), [], {}, {}
    jumps: dict[float, list[int]] = {}
    total = len(strengths) * seeds
    for i, strength in enumerate(strengths):
        jumps[strength] = []
        for seed in range(seeds):
            looked = seed == 0
            run = _train(hidden, updates, every, strength, p, learning_rate, seed, n_initial if looked else 0)
            jumps[strength].append(run["jump"])
            if progress is not None:
                progress(i * seeds + seed + 1, total, f"regulariser {strength:g}, seed {seed}")
            if not looked:
                continue
            name = "no regulariser (control)" if strength == 0 else f"regulariser {strength:g}"
            curves[f"stable points, {name}"] = run["stable"]
            if strength == 0:
                # In eighths, to share an axis that ends at the eight memories.
                curves["8 x share of right outputs, no regulariser"] = run["accuracy"] * np.array([1, 8])
            weights |= {f"{strength:g} {k}": v for k, v in run["weights"].items()}
            first = next((int(s) for s, n in run["stable"] if n >= 8), -1)
            rows.append([name, run["jump"], first, int(run["stable"][-1, 1]), float(run["accuracy"][-1, 1])])
    for row, strength in zip(rows, strengths, strict=True):
        row.insert(2, ", ".join(str(j) if j >= 0 else "never" for j in jumps[strength]))
    return CaseStudy(
        name="abrupt",
        title="Stable points of the flip-flop network while it learns",
        paper="Haputhanthri et al. 2025, arXiv 2502.07256",
        claim="Accuracy jumps after a plateau, in which the geometry is restructured: slow points and attractors "
        "appear. "
        "Penalising moving states brings this forward.",
        found=_finding(rows, jumps),
        ours="The paper's text was not at hand, only its abstract and a summary: the form of the regulariser, the "
        "sizes and "
        f"the definition of the jump are ours (the first look with 95 % of the outputs' signs right); {hidden} tanh "
        f"units.",
        tables=[
            {
                "title": "When it is learned, and when the eight memories are there",
                "columns": [
                    "run",
                    "jump (update)",
                    "jumps of all seeds",
                    "8 stable points (update)",
                    "stable points at the end",
                    "accuracy at the end",
                ],
                "rows": rows,
                "note": "Held input 0; the search is not exhaustive early on. Control: no regulariser. -1: never.",
            }
        ],
        curves=curves,
        x_title="update",
        y_title="stable fixed points (8 memories)",
        weights=weights,
        seconds=time.process_time() - began,
        provenance=Provenance(
            model="tanh network on the 3-bit flip-flop",
            seed=0,
            settings={
                "hidden": hidden,
                "updates": updates,
                "every": every,
                "strengths": list(strengths),
                "p": p,
                "learning_rate": learning_rate,
                "seeds": seeds,
            },
            control="the same network and batches without the regulariser",
        ),
    )


def _train(
    hidden: int, updates: int, every: int, strength: float, p: float, rate: float, seed: int, n_initial: int
) -> dict:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cell, readout = nn.RNN(3, hidden, batch_first=True), nn.Linear(hidden, 3)
    optimizer = torch.optim.Adam([*cell.parameters(), *readout.parameters()], lr=rate)
    test = _FLIP_FLOP.generate(128, np.random.default_rng((seed, 0, 1)), time=64, p=p)
    accuracy, stable, jump = [], [], -1
    for update in range(updates + 1):
        if update % every == 0:
            right = _right(cell, readout, test)
            accuracy.append([update, right])
            jump = update if jump < 0 and right >= 0.95 else jump
            if n_initial:
                found = fixed_points(from_module(cell), n_initial=n_initial, rounds=2, control=None, seed=seed)
                stable.append([update, int(found.stable.sum())])
        if update == updates:
            break
        drawn = _FLIP_FLOP.generate(128, np.random.default_rng((seed, update)), time=64, p=p)
        h, _ = cell(torch.from_numpy(drawn.inputs))
        loss = (readout(h) - torch.from_numpy(drawn.targets)).square().mean()
        loss = loss + strength * (h[:, 1:] - h[:, :-1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(cell.parameters(), 1.0)
        optimizer.step()
    weights = {k: v.detach().numpy().copy() for k, v in [*cell.named_parameters(), *readout.named_parameters()]}
    return {
        "accuracy": np.array(accuracy),
        "stable": np.array(stable, dtype=np.float64).reshape(-1, 2),
        "jump": jump,
        "weights": weights,
    }


@torch.no_grad()
def _right(cell: nn.Module, readout: nn.Module, test: object) -> float:
    """Share of outputs with the sign of their target."""
    outputs = readout(cell(torch.from_numpy(test.inputs))[0])  # pyright: ignore[reportAttributeAccessIssue]
    return float((outputs.sign().numpy() == test.targets).mean())  # pyright: ignore[reportAttributeAccessIssue]


def _finding(rows: list[list], jumps: dict[float, list[int]]) -> str:
    base = [j for j in jumps[0.0] if j >= 0] if 0.0 in jumps else []
    said = [f"Without the regulariser the jump comes at {', '.join(map(str, base)) or 'no look'} (by seed)"]
    for strength, at in jumps.items():
        if strength == 0:
            continue
        came = [j for j in at if j >= 0]
        word = "at no look of any seed" if not came else f"at {', '.join(map(str, came))}"
        earlier = bool(came) and bool(base) and len(came) == len(at) and np.mean(came) < np.mean(base)
        said.append(f"with {strength:g} {word}: {'earlier on average' if earlier else 'not earlier'}")
    jump, eight = rows[0][1], rows[0][3]
    if jump < 0 or eight < 0:
        said.append("jump or eight stable points never came without it, so their order is not known")
    else:
        order = "no later than" if eight <= jump else "only after"
        said.append(f"eight stable points are there {order} the jump (update {eight} against {jump})")
    return "; ".join(said) + "."
