"""Lorenz-63 reconstructed by a clipped shallow PLRNN under generalized teacher forcing (Hess et al. 2023)."""

import time
from collections.abc import Callable

import numpy as np
import torch

from strobe.core.provenance import Provenance
from strobe.probes.dynamics.case_studies.result import CaseStudy
from strobe.probes.dynamics.dynamical_similarity import d_hellinger, d_stsp
from strobe.probes.dynamics.known_systems import lorenz63, orbit
from strobe.probes.dynamics.lyapunov import lyapunov_spectrum
from strobe.probes.dynamics.piecewise_linear import PiecewiseLinear
from strobe.probes.dynamics.scyfi import piecewise_linear_cycles
from strobe.probes.dynamics.teacher_forcing import Forcing, fit_by_forcing

Tick = Callable[[int, int, str], None]
DT = 0.01
_FIXED = np.array([[0, 0, 0], [72**0.5, 72**0.5, 27], [-(72**0.5), -(72**0.5), 27]])


def make(
    *, forcing: Forcing | None = None, length: int = 10_000, exponent_steps: int = 3000, progress: Tick | None = None
) -> CaseStudy:
    """Train on `length` steps, keep the map whose free run is nearest in D_stsp to a second piece of the true orbit,
    and measure it on a third that neither saw."""
    forcing = forcing or Forcing(updates=3500)
    began = time.process_time()
    start = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
    true = orbit(lorenz63(DT), start, 3 * length, 1000)[0]
    mean, scale = true[:length].mean(0), true[:length].std(0)
    z = (true - mean) / scale
    fitted, chosen, judged = z[:length], z[length : 2 * length], z[2 * length :]

    def watch(map: PiecewiseLinear) -> float:
        run = free_run(map, chosen[0], length)
        if run is None:
            return float("inf")
        distance = d_stsp(chosen, run[500:])
        return distance.value + 5 * distance.outside

    forced = fit_by_forcing(fitted, forcing, watch, progress)
    seconds = time.process_time() - began
    run = free_run(forced.map, judged[0], length)
    assert run is not None
    rng = np.random.default_rng(forcing.seed)
    candidates = {
        "this network, running free": run[500:],
        "another piece of the truth (control)": fitted,
        "white noise of the same mean and spread (control)": rng.normal(size=judged.shape),
    }
    rows = [
        [name, d_stsp(judged, x).value, d_stsp(judged, x).outside, d_hellinger(judged, x)]
        for name, x in candidates.items()
    ]
    largest = lyapunov_spectrum(
        forced.map.system(),
        initial=run[1000:9000:1000] if length >= 10_000 else run[-2:],
        dt=DT,
        steps=exponent_steps,
        transient=500,
        control=False,
        seed=forcing.seed,
    )
    cycles = piecewise_linear_cycles(forced.map, 1, reach=4, control=False, seed=forcing.seed)
    fixed = np.array([o[0] for o in cycles.orbits]).reshape(-1, 3) * scale + mean
    fixed_rows = []
    for at in _FIXED:
        near = float(np.linalg.norm((fixed - at) / scale, axis=1).min()) if len(fixed) else float("inf")
        fixed_rows.append([str([round(float(v), 2) for v in at]), near])
    error = largest.standard_error[0]
    # Ours: a positive exponent, and a distance well below that of noise.
    appears = bool(largest.mean[0] > 3 * error and rows[0][1] < rows[2][1] / 2)
    return CaseStudy(
        name="lorenz",
        title="Lorenz-63, reconstructed and running free",
        paper="Hess, Monfared, Brenner & Durstewitz 2023, Generalized teacher forcing, arXiv 2306.04406",
        claim="Pulled a little towards the data while it trains, a piecewise-linear network learns the attractor "
        "itself.",
        found=f"D_stsp is {rows[0][1]:.2f} nats against {rows[1][1]:.2f} between two pieces of the truth and "
        f"{rows[2][1]:.2f} for noise. The largest Lyapunov exponent is {largest.mean[0]:.2f} +- {error:.2f} per "
        f"unit of "
        f"time, where the truth has .906; the exponents sum to {largest.mean.sum():.1f}, where the truth has -13.67. "
        f"{len(cycles.orbits)} fixed points were found exactly; the truth has three. "
        f"The paper's effect {'appears' if appears else 'does not appear at this size'}.",
        ours=f"{forcing.updates} updates where the paper makes 250,000; {forcing.hidden} hidden units, a fixed "
        f"alpha of "
        f"{forcing.alpha:g}; the best look by D_stsp on a second piece of the orbit is kept, and judged on a third. "
        "A run of 6,000 updates was looked at too and was worse (13.1 nats), so that piece is not untouched by choice.",
        tables=[
            {
                "title": "The free run against an unseen piece of the orbit",
                "columns": ["series", "D_stsp (nats)", "outside its range", "D_H"],
                "rows": rows,
                "note": "0 is the same. Controls: another piece of the true orbit, and noise.",
            },
            {
                "title": "Fixed points of the flow and the nearest of the network",
                "columns": ["true fixed point", "distance (standard deviations)"],
                "rows": fixed_rows,
                "note": "The network's are solved for exactly (SCYFI, order 1).",
            },
        ],
        curves={
            "truth (control)": _plane(judged[:3000] * scale + mean),
            "network": _plane(run[500:3500] * scale + mean),
        },
        x_title="x",
        y_title="z",
        weights={k: getattr(forced.map, k) for k in ("A", "W1", "W2", "h1", "h2")} | {"mean": mean, "scale": scale},
        seconds=seconds,
        provenance=Provenance(
            model="clipped shallow PLRNN",
            seed=forcing.seed,
            settings={**vars(forcing), "learning_rates": list(forcing.learning_rates), "length": length, "dt": DT},
            control="another piece of the true orbit; white noise of the same mean and spread",
        ),
    )


def free_run(map: PiecewiseLinear, start: np.ndarray, steps: int) -> np.ndarray | None:
    """The map's own orbit [steps, M] from `start`, or None where it runs away."""
    z, out = start, np.empty((steps, len(start)))
    for t in range(steps):
        z = map.step(z)
        if not np.isfinite(z).all() or np.abs(z).max() > 1e3:
            return None
        out[t] = z
    return out


def _plane(x: np.ndarray) -> np.ndarray:
    return x[:, [0, 2]].astype(np.float32)
