"""`dynamic_modes`: the linear map that best advances a series by one step, on its axes, delays or a dictionary.

Exact dynamic mode decomposition (Tu et al. 2014, algorithm 2): X and Y are the series and the series one step on,
X = U S V^T cut to a rank, A~ = U^T Y V S^-1. Its eigenvalues are growth and
turning per step; its modes Y V S^-1 w / lambda.
Delays (Hankel DMD) stand for what is not measured. Extended DMD (Williams, Kevrekidis & Rowley 2015) does the same on a
dictionary of functions of the state.

What a rank explains of the *training* steps says little, so the score is of steps that were held out, beside that of
*persistence*, which says that nothing changes: a slow series is predicted well by anything that stays near it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Complex128, Float64

from strobe.core import figures
from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.core.tokens import escape_plotly
from strobe.probes.fixed_points import classify

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

Lift = Callable[[Float64[np.ndarray, "n features"]], Float64[np.ndarray, "n lifted"]]


@dataclass(frozen=True)
class DynamicModes(Result):
    """A linear account of a series.

    `method`: what was fitted, in words. `eigenvalues` [rank], largest magnitude first; `modes` [rank, features] (of the
    last delay; empty for a dictionary or an autoencoder). `horizons` [n]: steps ahead; `errors`,
    `persistence` [n]: squared error of the held-out series at each, as a share of its variance, by this map and by
    saying that nothing changes. `dt`: units of time a step.
    """

    system: str
    method: str
    eigenvalues: Complex128[np.ndarray, " rank"]
    modes: Complex128[np.ndarray, "listed features"]
    horizons: np.ndarray
    errors: Float64[np.ndarray, " n"]
    persistence: Float64[np.ndarray, " n"]
    dt: float

    @property
    def growth(self) -> Float64[np.ndarray, " rank"]:
        """The growth rate ln |lambda| per unit of time."""
        with np.errstate(divide="ignore"):
            return np.log(np.abs(self.eigenvalues)) / self.dt

    @property
    def frequencies(self) -> Float64[np.ndarray, " rank"]:
        """|arg lambda| / 2 pi, in cycles per unit of time."""
        return np.abs(np.angle(self.eigenvalues)) / (2 * np.pi * self.dt)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Held-out error against horizon, beside persistence."""
        import plotly.graph_objects as go

        fig, colours = go.Figure(), figures.colors(template)
        fig.add_scatter(
            x=self.horizons,
            y=self.persistence,
            mode="lines+markers",
            name="nothing changes (control)",
            line={"color": figures.CONTROL_COLOR, "dash": "dash"},
            marker={"symbol": "x"},
        )
        fig.add_scatter(
            x=self.horizons, y=self.errors, mode="lines+markers", name=self.method, line={"color": colours[0]}
        )
        note = f"{len(self.eigenvalues)} eigenvalues, largest |lambda| {np.abs(self.eigenvalues).max():.4g}"
        fig.update_layout(
            title={"text": f"Prediction of {escape_plotly(self.system)}", "subtitle": {"text": note}},
            margin={"t": 84},
            legend={"y": -0.18, "yanchor": "top", "x": 0, "xanchor": "left"},
        )
        fig.update_xaxes(title_text="steps ahead")
        fig.update_yaxes(title_text="squared error / variance, held out")
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row an eigenvalue: magnitude, growth, frequency, timescale."""
        import pandas as pd

        return pd.DataFrame(
            {
                "real": np.real(self.eigenvalues),
                "imag": np.imag(self.eigenvalues),
                "magnitude": np.abs(self.eigenvalues),
                "growth": self.growth,
                "frequency": self.frequencies,
                "tau": classify.timescales(self.eigenvalues) * self.dt,
            }
        )

    def summary(self) -> str:
        """The slowest eigenvalues, the held-out error beside persistence, the provenance."""
        shown = ", ".join(f"{v:.4g}" for v in self.eigenvalues[:5])
        lines = [f"{self.method} of {self.system}: eigenvalues {shown}{', ...' if len(self.eigenvalues) > 5 else ''}"]
        for h, e, p in zip(self.horizons, self.errors, self.persistence, strict=True):
            lines.append(f"  {int(h)} steps ahead: error {e:.3g} of the variance held out, persistence {p:.3g}")
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def dynamic_modes(
    series: Float64[np.ndarray, "runs time features"],
    *,
    rank: int | None = None,
    delays: int = 1,
    lift: Lift | None = None,
    dt: float | int = 1.0,
    held_out: float = 0.25,
    horizons: tuple[int, ...] = (1, 2, 5, 10),
    system: str = "series",
    provenance: Provenance | None = None,
) -> DynamicModes:
    """Exact DMD of `series`, several runs of one system; with `delays` > 1 Hankel DMD; with `lift` extended DMD.

    `rank`: principal axes kept (None: all above rounding). The last `held_out` of each run is predicted, not fitted.
    `lift` maps states [n, features] to features of them [n, lifted]; its first columns have to be the states
    themselves, so that a prediction can be read off. Raises ValueError for a series too short for this, or not finite.
    """
    runs, time, features = series.shape
    cut = time - round(held_out * time)
    if not np.isfinite(series).all():
        raise ValueError("the series is not finite throughout; leave out the runs that ran away and say so")
    if cut <= delays or time - cut <= max(horizons) + delays:
        raise ValueError(
            f"{time} steps with {held_out:.0%} held out were given for {delays} delays and horizons up to "
            f"{max(horizons)}; give longer runs, or fewer of either"
        )
    mean = series[:, :cut].mean((0, 1)) if lift is None else np.zeros(features)
    lifted = _delayed(series - mean, delays) if lift is None else _lifted(series, delays, lift)
    split = cut - delays + 1
    X, Y = (lifted[:, i : split - 1 + i].reshape(-1, lifted.shape[-1]).T for i in (0, 1))
    axes, A, eigenvalues, modes = _exact(X, Y, rank)

    def ahead(x: np.ndarray, steps: int) -> np.ndarray:
        z = x @ axes
        for _ in range(steps):
            z = z @ A.T
        found = z @ axes.T
        return found[..., :features] + mean if lift is not None else found[..., -features:] + mean

    errors, persistence = held_out_errors(series[:, cut:], lifted[:, split:], ahead, horizons)
    kind = f"extended DMD, {lifted.shape[-1]} functions" if lift else "exact DMD" + f", {delays} delays" * (delays > 1)
    return DynamicModes(
        system=system,
        method=f"{kind}, rank {len(eigenvalues)}",
        eigenvalues=eigenvalues,
        modes=modes[:, -features:] if lift is None else np.zeros((0, features), dtype=np.complex128),
        horizons=np.array(horizons, dtype=np.int64),
        errors=errors,
        persistence=persistence,
        dt=float(dt),
        provenance=Provenance(
            model=provenance.model if provenance else system,
            weights_hash=provenance.weights_hash if provenance else None,
            settings={"rank": len(eigenvalues), "delays": delays, "held_out": held_out, "runs": runs, "dt": float(dt)},
            control="persistence: the prediction that nothing changes",
        ),
    )


def held_out_errors(
    truth: Float64[np.ndarray, "runs rest features"],
    lifted: np.ndarray,
    ahead: Callable[[np.ndarray, int], np.ndarray],
    horizons: tuple[int, ...],
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Squared error of ``ahead(lifted, steps)`` and of persistence against `truth`, as shares of its variance.

    ``lifted[:, i]`` is the state as the map takes it at ``truth[:, i]`` (its last delay).
    """
    variance = np.square(truth - truth.mean((0, 1))).mean()
    made, stayed = [], []
    for steps in horizons:
        target = truth[:, steps:]
        made.append(np.square(ahead(lifted[:, :-steps], steps) - target).mean() / variance)
        stayed.append(np.square(truth[:, :-steps] - target).mean() / variance)
    return np.array(made), np.array(stayed)


def _exact(X: np.ndarray, Y: np.ndarray, rank: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(principal axes, map on them, eigenvalues largest first, exact modes [rank, features])."""
    U, S, Vt = np.linalg.svd(X, full_matrices=False)
    kept = int(np.count_nonzero(S / S[0] > 1e-10)) if S[0] > 0 else 0
    if not kept:
        raise ValueError("the series does not move, so there is no map to fit; give one that does")
    kept = kept if rank is None else min(rank, kept)
    U, S, Vt = U[:, :kept], S[:kept], Vt[:kept]
    advanced = Y @ (Vt.T / S)
    A = U.T @ advanced
    eigenvalues, vectors = np.linalg.eig(A)
    order = np.argsort(-np.abs(eigenvalues), kind="stable")
    eigenvalues, vectors = eigenvalues[order].astype(np.complex128), vectors[:, order].astype(np.complex128)
    modes = (advanced @ vectors).T
    nonzero = np.abs(eigenvalues) > 1e-12
    modes[nonzero] /= eigenvalues[nonzero, None]
    return U, A, eigenvalues, modes


def _delayed(series: np.ndarray, delays: int) -> np.ndarray:
    """[runs, time - delays + 1, delays * features]: each state behind the `delays` - 1 before it, the newest last."""
    time = series.shape[1] - delays + 1
    return np.concatenate([series[:, i : i + time] for i in range(delays)], axis=-1)


def _lifted(series: np.ndarray, delays: int, lift: Lift) -> np.ndarray:
    if delays != 1:
        raise ValueError(f"{delays} delays and a dictionary were asked for; put the delays into the dictionary")
    runs, time, features = series.shape
    flat = series.reshape(-1, features)
    lifted = np.asarray(lift(flat))
    if lifted.ndim != 2 or len(lifted) != len(flat) or not np.allclose(lifted[:, :features], flat):
        raise ValueError(
            f"the dictionary was given states {flat.shape} and returned {lifted.shape}; it has to return one row for "
            "each, whose first columns are the state itself"
        )
    return lifted.reshape(runs, time, -1)
