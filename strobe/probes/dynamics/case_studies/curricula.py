"""N-parity and N-DMS by a single-head and a multi-head curriculum, with the timescales each leaves behind."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from strobe.core.provenance import Provenance
from strobe.probes.dynamics.case_studies.leaky import Curriculum, LeakyNetwork, Learned, learn, noise_driven
from strobe.probes.dynamics.case_studies.result import CaseStudy
from strobe.probes.dynamics.timescales import autocorrelation_timescales

Tick = Callable[[int, int, str], None]


def make(*, curriculum: Curriculum | None = None, trials: int = 64, progress: Tick | None = None) -> CaseStudy:
    """Train one network for each problem and curriculum, and measure its timescales under random bits."""
    base = curriculum or Curriculum(updates=4000)
    began = time.process_time()
    rows, curves, weights, tau_rows = [], {}, {}, []
    largest: dict[tuple[str, str], tuple[int, float, float, float]] = {}
    untrained = LeakyNetwork(base.hidden, 1, base.seed)
    start = autocorrelation_timescales(noise_driven(untrained, trials, 400, base.seed), lags=80)
    for problem in ("parity", "dms"):
        for heads in ("single", "multi"):
            done = learn(replace(base, problem=problem, heads=heads), progress)
            measured = autocorrelation_timescales(noise_driven(done.network, trials, 400, base.seed), lags=80)
            name, reached = f"{heads}-head {problem}", done.stages[-1].n if done.stages else 1
            tau = done.network.tau.detach().numpy()
            rows.append([name, reached, done.updates, float(tau.mean()), float(tau.max())])
            network_tau = float(np.nanmedian(measured.tau)) if np.isfinite(measured.tau).any() else float("nan")
            rows[-1] += [network_tau, measured.population_tau]
            largest[problem, heads] = (reached, float(tau.mean()), network_tau, measured.population_tau)
            curves[name] = _stages(done)
            tau_rows.append([name, float(tau.mean()), network_tau])
            weights |= {f"{name} {k}": v.detach().numpy() for k, v in done.network.named_parameters()}
    initial = untrained.tau.detach()
    rows.append(
        [
            "untrained (control)",
            1,
            0,
            float(initial.mean()),
            float(initial.max()),
            float(np.nanmedian(start.tau)) if np.isfinite(start.tau).any() else float("nan"),
            start.population_tau,
        ]
    )
    curves["untrained (control)"] = np.array([[2, float(initial.mean())], [base.most, float(initial.mean())]])
    return CaseStudy(
        name="curricula",
        title="Mean time constant as the memory asked for grows",
        paper="Khajehabdollahi et al. 2024, ICLR, arXiv 2309.12927",
        claim="A single-head curriculum lengthens the units' time constants; a multi-head one drives them towards 1 "
        "and "
        "holds the memory in the network, which learns further.",
        found=_finding(largest, float(initial.mean())),
        ours=f"{base.hidden} units where the paper has 500, at most N = {base.most} where it reaches 100, "
        f"{base.updates} updates a network, Adam instead of SGD; one seed.",
        tables=[
            {
                "title": "What each curriculum leaves behind",
                "columns": [
                    "curriculum",
                    "largest N solved",
                    "updates",
                    "mean tau",
                    "largest tau",
                    "median network timescale",
                    "population timescale",
                ],
                "rows": rows,
                "note": "Timescales in steps, from autocorrelations under random bits. Control: the untrained network.",
            }
        ],
        curves=curves,
        x_title="N that was just solved",
        y_title="mean time constant tau (steps)",
        weights=weights,
        seconds=time.process_time() - began,
        provenance=Provenance(
            model="leaky network, learned time constants",
            seed=base.seed,
            settings={k: v for k, v in vars(base).items() if k not in ("problem", "heads")} | {"trials": trials},
            control="the untrained network",
        ),
    )


def _stages(done: Learned) -> np.ndarray:
    if not done.stages:
        return np.zeros((0, 2))
    return np.array([[s.n, s.mean_tau] for s in done.stages])


def _finding(at: dict[tuple[str, str], tuple[int, float, float, float]], initial: float) -> str:
    said = []
    for problem in ("parity", "dms"):
        single, multi = at[problem, "single"], at[problem, "multi"]
        said.append(
            f"{problem}: mean tau goes from {initial:.2f} to {single[1]:.2f} single-head (N = {single[0]}) and to "
            f"{multi[1]:.2f} multi-head (N = {multi[0]}). That multi-head ends nearer to 1 "
            f"{'appears' if multi[1] < single[1] else 'does not appear'}, that it solves more "
            f"{'appears' if multi[0] > single[0] else 'does not appear'}, and that single-head lengthens tau "
            f"{'appears' if single[1] > initial else 'does not appear at this size'}"
        )
    return ". ".join(said) + "."
