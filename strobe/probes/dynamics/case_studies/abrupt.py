"""Abrupt learning of the 3-bit flip-flop: fixed points before and after the jump, with and without a consistency term.

Haputhanthri et al. 2025, "Understanding and controlling the geometry of memory organization in RNNs" (arXiv
2502.07256): a plateau, then a *geometric restructuring* in which slow points and attractors appear, then the jump in
accuracy; a temporal-consistency regulariser that penalises moving states makes it come earlier.

The form of the regulariser here is ours, lambda times the mean of |h_{t+1} - h_t|^2 over batch, time and units.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from strobe.core.provenance import Provenance
from strobe.models.tasks import task
from strobe.probes.dynamics.case_studies.result import CaseStudy
from strobe.probes.dynamics.kept_run import KeptRun
from strobe.probes.fixed_points import fixed_points, from_module

_FLIP_FLOP = task("flip_flop")
# Of outputs with the right sign: where the jump is (ours).
_JUMPED = 0.95


class _Run(NamedTuple):
    """One training: [looks, 2] of update and accuracy, stable points, all points, and the least |1 - |lambda|| of any
    point found; weights by name."""

    accuracy: np.ndarray
    stable: np.ndarray
    found: np.ndarray
    slowest: np.ndarray
    weights: dict[str, np.ndarray]

    @property
    def jump(self) -> int:
        """The first look at which the accuracy has jumped, or -1."""
        return _first(self.accuracy, _JUMPED)

    @property
    def eight(self) -> int:
        """The first look with eight stable points, or -1."""
        return _first(self.stable, 8)


def make(
    *,
    hidden: int = 16,
    updates: int = 400,
    every: int = 25,
    strengths: tuple[float, ...] = (0.0, 0.03, 0.3),
    p: float = 0.1,
    learning_rate: float = 5e-3,
    seeds: int = 3,
    n_initial: int = 96,
    run: KeptRun | None = None,
) -> CaseStudy:
    """Train tanh networks with each regulariser and `seeds` seeds; search each one's fixed points on the way.

    `run`: where trainings are kept and go on from.
    """
    run = run or KeptRun(None)
    run.total = len(strengths) * seeds * updates
    runs = {
        strength: [_train(hidden, updates, every, strength, p, learning_rate, s, n_initial, run) for s in range(seeds)]
        for strength in strengths
    }
    curves = {f"stable points, {_named(k)}": _mean([r.stable for r in all_]) for k, all_ in runs.items()}
    plain = runs[strengths[0]]
    # In eighths, to share an axis that ends at the eight memories.
    curves[f"8 x share of right outputs, {_named(strengths[0]).removesuffix(' (control)')}"] = _mean(
        [r.accuracy for r in plain]
    ) * [1, 8]
    return CaseStudy(
        name="abrupt",
        title="Stable points of the flip-flop network while it learns",
        paper="Haputhanthri et al. 2025, arXiv 2502.07256",
        claim="Accuracy jumps after a plateau, in which the geometry is restructured: slow points and attractors "
        "appear. Penalising moving states brings this forward.",
        found=_finding(runs),
        ours="The paper's text was not at hand, only its abstract and a summary: the form of the regulariser, the "
        f"sizes and the definition of the jump are ours (the first look with {_JUMPED:.0%} of the outputs' signs "
        f"right, a look every {every} updates); {hidden} tanh units, {seeds} seeds.",
        tables=[_when(runs), _geometry(runs)],
        curves=curves,
        x_title="update",
        y_title="stable fixed points (8 memories), mean over seeds",
        weights={f"{k:g} {name}": v for k, all_ in runs.items() for name, v in all_[0].weights.items()},
        seconds=run.seconds,
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


def _named(strength: float) -> str:
    return "no regulariser (control)" if strength == 0 else f"regulariser {strength:g}"


def _when(runs: dict[float, list[_Run]]) -> dict:
    rows = [
        [
            _named(k),
            _listed([r.jump for r in all_]),
            _listed([r.eight for r in all_]),
            _listed([int(r.stable[-1, 1]) for r in all_]),
            float(np.mean([r.accuracy[-1, 1] for r in all_])),
        ]
        for k, all_ in runs.items()
    ]
    return {
        "title": "When it is learned, and when the eight memories are there, by seed",
        "columns": ["run", "jump (update)", "8 stable points (update)", "stable points at the end", "accuracy, mean"],
        "rows": rows,
        "note": "Held input 0; the search is not exhaustive early on. Control: no regulariser.",
    }


def _geometry(runs: dict[float, list[_Run]]) -> dict:
    """The geometry along the run without the regulariser, by look: what there is before the jump and after it."""
    plain = next(iter(runs.values()))
    rows = [
        [
            int(update),
            float(np.mean([r.accuracy[i, 1] for r in plain])),
            _listed([int(r.found[i, 1]) for r in plain]),
            _listed([int(r.stable[i, 1]) for r in plain]),
            ", ".join(f"{r.slowest[i, 1]:.2g}" for r in plain),
        ]
        for i, update in enumerate(plain[0].accuracy[:, 0])
    ]
    return {
        "title": f"Geometry along the way, {_named(next(iter(runs)))}, by seed",
        "columns": ["update", "accuracy, mean", "fixed points", "stable ones", "least |1 - |eigenvalue|| of any"],
        "rows": rows,
        "note": "A small last column is a slow direction. Control: update 0 is the untrained network.",
    }


def _listed(values: list[int]) -> str:
    return ", ".join("never" if v < 0 else str(v) for v in values)


def _first(curve: np.ndarray, level: float | int) -> int:
    reached = np.nonzero(curve[:, 1] >= level)[0]
    return int(curve[reached[0], 0]) if len(reached) else -1


def _mean(curves: list[np.ndarray]) -> np.ndarray:
    return np.mean(curves, axis=0)


def _train(
    hidden: int,
    updates: int,
    every: int,
    strength: float,
    p: float,
    rate: float,
    seed: int,
    n_initial: int,
    run: KeptRun,
) -> _Run:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cell, readout = nn.RNN(3, hidden, batch_first=True), nn.Linear(hidden, 3)
    optimizer = torch.optim.Adam([*cell.parameters(), *readout.parameters()], lr=rate)
    test = _FLIP_FLOP.generate(128, np.random.default_rng((seed, 0, 1)), time=64, p=p)
    name = f"regulariser {strength:g}, seed {seed}"
    settings = {"hidden": hidden, "every": every, "p": p, "rate": rate, "strength": strength, "initial": n_initial}
    loop = run.loop(name, updates, settings, cell=cell, readout=readout, optimizer=optimizer)
    looks = loop.noted({"looks": []})["looks"]
    for update in loop:
        if update % every == 0:
            looks.append([update, *_look(cell, readout, test, n_initial, seed)])
        drawn = _FLIP_FLOP.generate(128, np.random.default_rng((seed, update)), time=64, p=p)
        h, _ = cell(torch.from_numpy(drawn.inputs))
        loss = (readout(h) - torch.from_numpy(drawn.targets)).square().mean()
        loss = loss + strength * (h[:, 1:] - h[:, :-1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(cell.parameters(), 1.0)
        optimizer.step()
        loop.did(float(loss.detach()), name)
    seen = np.array([*looks, [updates, *_look(cell, readout, test, n_initial, seed)]], dtype=np.float64)
    weights = {k: v.detach().numpy().copy() for k, v in [*cell.named_parameters(), *readout.named_parameters()]}
    accuracy, stable, found, slowest = (seen[:, [0, i]] for i in range(1, 5))
    return _Run(accuracy, stable, found, slowest, weights)


def _look(cell: nn.RNN, readout: nn.Module, test: object, n_initial: int, seed: int) -> list[float | int]:
    """Accuracy, stable points, points, and the least |1 - |eigenvalue|| over the points (NaN without one)."""
    found = fixed_points(from_module(cell), n_initial=n_initial, rounds=2, control=None, seed=seed)
    distance = np.abs(1 - np.abs(found.eigenvalues))
    slowest = float(distance.min()) if distance.size else float("nan")
    return [_right(cell, readout, test), int(found.stable.sum()), len(found.stable), slowest]


@torch.no_grad()
def _right(cell: nn.Module, readout: nn.Module, test: object) -> float:
    """Share of outputs with the sign of their target."""
    outputs = readout(cell(torch.from_numpy(test.inputs))[0])  # pyright: ignore[reportAttributeAccessIssue]
    return float((outputs.sign().numpy() == test.targets).mean())  # pyright: ignore[reportAttributeAccessIssue]


def _finding(runs: dict[float, list[_Run]]) -> str:
    """With the strengths in their order, the first without the regulariser."""
    (first, plain), *others = runs.items()
    base = [r.jump for r in plain]
    said = [f"With {_named(first).removesuffix(' (control)')} the jump comes at {_listed(base)} (by seed)"]
    for strength, all_ in others:
        earlier = [r.jump >= 0 and (r.jump < b or b < 0) for r, b in zip(all_, base, strict=True)]
        said.append(
            f"with {strength:g} at {_listed([r.jump for r in all_])}: earlier in {sum(earlier)} of {len(earlier)} seeds"
        )
    before = [r for r in plain if 0 <= r.eight <= r.jump]
    said.append(
        f"eight stable points are there no later than the jump in {len(before)} of {len(plain)} seeds "
        f"(at {_listed([r.eight for r in plain])})"
    )
    grown = [_at(r.found, r.jump) > r.found[0, 1] for r in plain if r.jump >= 0]
    said.append(f"there are more fixed points at the jump than before training in {sum(grown)} of {len(plain)} seeds")
    return "; ".join(said) + "."


def _at(curve: np.ndarray, update: int) -> float:
    return float(curve[curve[:, 0] == update, 1][0])
