"""N-parity and N-DMS by a single-head and a multi-head curriculum: the timescales each leaves, what it withstands."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from strobe.core.provenance import Provenance
from strobe.probes.dynamics.case_studies.leaky import Curriculum, LeakyNetwork, Stage, learn, noise_driven
from strobe.probes.dynamics.case_studies.result import CaseStudy
from strobe.probes.dynamics.case_studies.robustness import (
    NOISE,
    RETRAINED,
    SILENCED,
    SKIPPED,
    Robustness,
    retrained,
    robustness,
)
from strobe.probes.dynamics.kept_run import KeptRun
from strobe.probes.dynamics.timescales import autocorrelation_timescales

_PROBLEMS = ("parity", "dms")
_HEADS = ("single", "multi")


class _Measured(NamedTuple):
    """One network: the largest N it solved, updates, time constants, timescales under random bits, damage."""

    n: int
    updates: int
    mean_tau: float
    largest_tau: float
    network_tau: float
    population_tau: float
    damaged: Robustness
    stages: list[Stage]


def make(
    *, curriculum: Curriculum | None = None, seeds: int = 3, trials: int = 64, run: KeptRun | None = None
) -> CaseStudy:
    """Train `seeds` networks for each problem and curriculum, measure their timescales under random bits, damage them.

    `run`: where trainings are kept and go on from.
    """
    base, run = curriculum or Curriculum(), run or KeptRun(None)
    run.total = seeds * len(_PROBLEMS) * len(_HEADS) * base.updates
    measured: dict[tuple[str, str], list[_Measured]] = {}
    weights, untrained = {}, []
    for seed in range(seeds):
        for problem in _PROBLEMS:
            for heads in _HEADS:
                one, arrays = _measure(replace(base, problem=problem, heads=heads, seed=seed), trials, run)
                measured.setdefault((problem, heads), []).append(one)
                if seed == 0:
                    weights |= {f"{heads}-head {problem} {k}": v for k, v in arrays.items()}
        untrained.append(_untrained(replace(base, seed=seed), trials))
    initial = float(np.mean([u[0] for u in untrained]))
    curves = {f"{heads}-head {problem}": _mean_curve(all_) for (problem, heads), all_ in measured.items()}
    curves["untrained (control)"] = np.array([[2, initial], [base.most, initial]])
    return CaseStudy(
        name="curricula",
        title="Mean time constant as the memory asked for grows",
        paper="Khajehabdollahi et al. 2024, ICLR, arXiv 2309.12927",
        claim="A single-head curriculum lengthens the units' time constants; a multi-head one drives them towards 1 "
        "and holds the memory in the network, whose own timescale grows; that learns further and withstands more.",
        found=_finding(measured, untrained),
        ours=f"{base.hidden} units where the paper has 500, at most N = {base.most} where it reaches 100, "
        f"{base.updates} updates a network, Adam instead of SGD; {seeds} seeds; the sizes of the damage.",
        tables=[
            _left_behind(measured, untrained),
            _damaged(measured, base, seeds),
        ],
        curves=curves,
        x_title="N that was just solved",
        y_title="mean time constant tau (steps), mean over seeds",
        weights=weights,
        seconds=run.seconds,
        provenance=Provenance(
            model="leaky network, learned time constants",
            seed=base.seed,
            settings={k: v for k, v in vars(base).items() if k not in ("problem", "heads", "seed")}
            | {"trials": trials, "seeds": seeds},
            control="the untrained network; random units silenced in place of the slowest",
        ),
    )


def _measure(curriculum: Curriculum, trials: int, run: KeptRun) -> tuple[_Measured, dict[str, np.ndarray]]:
    done = learn(curriculum, run)
    run.tick("measuring")
    reached = done.stages[-1].n if done.stages else 1
    network_tau, population_tau = _timescales(done.network, trials, curriculum.seed)
    tau = done.network.tau.detach()
    one = _Measured(
        n=reached,
        updates=done.updates,
        mean_tau=float(tau.mean()),
        largest_tau=float(tau.max()),
        network_tau=network_tau,
        population_tau=population_tau,
        damaged=robustness(done.network, curriculum, max(2, reached), curriculum.seed),
        stages=done.stages,
    )
    return one, {k: v.detach().numpy() for k, v in done.network.named_parameters()}


def _untrained(curriculum: Curriculum, trials: int) -> tuple[float, float, float, float]:
    """Mean and largest tau, median and population timescale of the network before any training."""
    network = LeakyNetwork(curriculum.hidden, 1, curriculum.seed)
    tau = network.tau.detach()
    return float(tau.mean()), float(tau.max()), *_timescales(network, trials, curriculum.seed)


def _timescales(network: LeakyNetwork, trials: int, seed: int) -> tuple[float, float]:
    """Median over units, and the population's; NaN where no unit has one."""
    found = autocorrelation_timescales(noise_driven(network, trials, 400, seed), lags=80)
    median = float(np.nanmedian(found.tau)) if np.isfinite(found.tau).any() else float("nan")
    return median, found.population_tau


def _mean_curve(measured: list[_Measured]) -> np.ndarray:
    """N and mean tau when it was solved, over the seeds that solved it."""
    by: dict[int, list[float]] = {}
    for one in measured:
        for stage in one.stages:
            by.setdefault(stage.n, []).append(stage.mean_tau)
    return np.array([[n, np.mean(tau)] for n, tau in sorted(by.items())], dtype=np.float64).reshape(-1, 2)


def _left_behind(measured: dict[tuple[str, str], list[_Measured]], untrained: list[tuple]) -> dict:
    rows = [
        [f"{heads}-head {problem}, seed {seed}", *one[:6]]
        for (problem, heads), all_ in measured.items()
        for seed, one in enumerate(all_)
    ]
    rows += [[f"untrained, seed {seed} (control)", 1, 0, *u] for seed, u in enumerate(untrained)]
    columns = ["largest N solved", "updates", "mean tau", "largest tau", "median timescale", "population timescale"]
    return {
        "title": "What each curriculum leaves behind",
        "columns": ["curriculum", *columns],
        "rows": rows,
        "note": "Timescales in steps, from autocorrelations under random bits. Control: the untrained networks.",
    }


def _damaged(measured: dict[tuple[str, str], list[_Measured]], base: Curriculum, seeds: int) -> dict:
    rows = [
        [f"{heads}-head {problem}", *(_spread([getattr(m.damaged, f) for m in all_]) for f in Robustness._fields)]
        for (problem, heads), all_ in measured.items()
    ]
    for problem in _PROBLEMS:
        n = [max(m.n for m in (measured[problem, "single"][s], measured[problem, "multi"][s])) for s in range(seeds)]
        fresh = [
            retrained(
                LeakyNetwork(base.hidden, 1, s), replace(base, problem=problem, seed=s), max(2, n[s]) + SKIPPED, s
            )
            for s in range(seeds)
        ]
        rows.append([f"untrained, {problem} (control)", "-", "-", "-", "-", "-", _spread(fresh)])
    return {
        "title": "Accuracy at the largest N solved when the network is damaged, and at a larger one after retraining",
        "columns": [
            "curriculum",
            "untouched",
            f"{SILENCED} slowest units silenced",
            f"{SILENCED} fastest",
            f"{SILENCED} random (control)",
            f"noise of {NOISE:g} of its spread on W",
            f"{RETRAINED} updates for N + {SKIPPED} alone",
        ],
        "rows": rows,
        "note": "Mean over seeds (smallest to largest); guessing is .5. N is each network's own, in the table above. "
        "Control: random units; for retraining, a network that was not trained, at the larger of the two N.",
    }


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _finding(measured: dict[tuple[str, str], list[_Measured]], untrained: list[tuple]) -> str:
    said, initial, own = [], float(np.mean([u[0] for u in untrained])), float(np.mean([u[2] for u in untrained]))
    for problem in _PROBLEMS:
        single, multi = measured[problem, "single"], measured[problem, "multi"]
        seeds = len(single)

        def count(claims: list[bool], seeds: int = seeds) -> str:
            return f"{'appears' if all(claims) else 'does not appear'} ({sum(claims)} of {seeds} seeds)"

        said.append(
            f"{problem}: mean tau goes from {initial:.2f} to {_spread([m.mean_tau for m in single])} single-head "
            f"(N = {', '.join(str(m.n) for m in single)}) and to {_spread([m.mean_tau for m in multi])} multi-head "
            f"(N = {', '.join(str(m.n) for m in multi)}). "
            "That multi-head drives tau nearer to 1 "
            + count([m.mean_tau < s.mean_tau for s, m in zip(single, multi, strict=True)])
            + ", that it learns further "
            + count([m.n > s.n for s, m in zip(single, multi, strict=True)])
            + ", that single-head lengthens tau "
            + count([s.mean_tau > initial for s in single])
            + f", that its own timescale (median over units {_spread([m.network_tau for m in multi])}, untrained "
            + f"{own:.2f}) grows "
            + count([m.network_tau > u[2] for m, u in zip(multi, untrained, strict=True)])
            + ", that it withstands noise on its weights better "
            + count([m.damaged.noisy > s.damaged.noisy for s, m in zip(single, multi, strict=True)])
        )
    return ". ".join(said) + "."
