"""`autocorrelation_timescales`: for how long activity resembles itself, unit by unit and as a population.

The autocorrelation of each series is fitted with one and with two exponentials, and Akaike's criterion chooses
(Khajehabdollahi et al. 2024, "Emergent mechanisms for long timescales depend on training curriculum and affect
performance in memory tasks", ICLR; arXiv 2309.12927, section 3.3). The reported timescale is the slower component's.

The estimate of a short series is biased low: the mean that is subtracted is the series' own. Control, ours: each unit's
series in random order, whose timescale is that of no memory at all.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int

from strobe.core import figures
from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.core.tokens import escape_plotly

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# An exponential slower than this many times the longest lag is a constant as far as the data can tell.
_SLOWEST = 5.0
# Share of the variance: a correlation below it, and a component that carries less, are taken for noise.
_GONE = 0.05


class Fit(NamedTuple):
    """The slowest component's `tau` in steps (NaN: no fit), and the number of `components` chosen (0, 1 or 2)."""

    tau: float
    components: int


@dataclass(frozen=True)
class Autocorrelation(Result):
    """Timescales of activity, in steps.

    `correlations` [units, lags]: of each unit, from lag 0. `tau`, `components` [units]: the fits (NaN, 0: none, because
    the unit does not move or its correlation is gone at lag 1). `population` [lags], `population_tau`: mean over units
    that move. `control_tau` [units]: of the same series in random order.
    """

    system: str
    correlations: Float64[np.ndarray, "units lags"]
    tau: Float64[np.ndarray, " units"]
    components: Int[np.ndarray, " units"]
    population: Float64[np.ndarray, " lags"]
    population_tau: float
    control_tau: Float64[np.ndarray, " units"]

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """How many units have which timescale, the control in grey."""
        import plotly.graph_objects as go

        fig = go.Figure()
        top = float(np.nanmax(np.concatenate([self.tau, self.control_tau, [1.0]])))
        bins = {"start": 0, "end": top * 1.001, "size": top / 30}
        fig.add_histogram(
            x=self.control_tau, xbins=bins, name="random order (control)", marker={"color": figures.CONTROL_COLOR}
        )
        fig.add_histogram(x=self.tau, xbins=bins, name="units", marker={"color": figures.colors(template)[0]})
        still = int(np.isnan(self.tau).sum())
        note = f"population {self.population_tau:.3g} steps; {still} of {len(self.tau)} units have none"
        fig.update_layout(
            title={
                "text": f"Autocorrelation timescales of {escape_plotly(self.system)}",
                "subtitle": {"text": note},
            },
            barmode="overlay",
            margin={"t": 84},
            legend={"y": -0.18, "yanchor": "top", "x": 0, "xanchor": "left"},
        )
        fig.update_traces(opacity=0.8)
        fig.update_xaxes(title_text="timescale (steps)")
        fig.update_yaxes(title_text="units")
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row a unit: timescale, exponentials in its fit, the control's timescale."""
        import pandas as pd

        return pd.DataFrame(
            {
                "unit": np.arange(len(self.tau)),
                "tau": self.tau,
                "components": self.components,
                "control_tau": self.control_tau,
            }
        )

    def summary(self) -> str:
        """Median and largest timescale, the population's, how many had none, the control, the provenance."""
        has = self.tau[np.isfinite(self.tau)]
        shown = f"median {np.median(has):.3g}, largest {has.max():.3g} steps" if len(has) else "none"
        control = self.control_tau[np.isfinite(self.control_tau)]
        lines = [
            f"autocorrelation timescales of {self.system}: {shown}; population {self.population_tau:.3g}",
            f"  {len(self.tau) - len(has)} of {len(self.tau)} units have none; "
            f"{int((self.components == 2).sum())} are fitted by two exponentials",
            f"  control: median {np.median(control) if len(control) else float('nan'):.3g} steps "
            f"over {len(control)} units that have one ({self.provenance.control})",
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def autocorrelation_timescales(
    activity: Float64[np.ndarray, "trials time units"],
    *,
    lags: int | None = None,
    system: str = "activity",
    provenance: Provenance | None = None,
    seed: int = 0,
) -> Autocorrelation:
    """Timescales of `activity`, each trial a run of the same system with other noise or other inputs.

    `lags`: the longest lag that is fitted (None: a quarter of the time). `provenance`: of what made the activity; its
    model and weights are carried over. Raises ValueError for fewer than 8 steps, or activity that is not finite.
    """
    _, time, units = activity.shape
    longest = time // 4 if lags is None else lags
    if time < 8 or not 3 <= longest < time:
        raise ValueError(
            f"lags up to {longest} of {time} steps were asked for; give at least 8 steps and 3 lags within"
        )
    if not np.isfinite(activity).all():
        raise ValueError("the activity is not finite throughout; leave out the runs that ran away and say so")
    correlations = autocorrelation(activity, longest)
    fits = [fit_timescale(c) for c in correlations.T]
    order = np.random.default_rng(seed).permutation(time)
    shuffled = [fit_timescale(c).tau for c in autocorrelation(activity[:, order], longest).T]
    moving = np.isfinite(correlations).all(0)
    population = correlations[:, moving].mean(1) if moving.any() else np.full(longest + 1, np.nan)
    return Autocorrelation(
        system=system,
        correlations=correlations.T.copy(),
        tau=np.array([f.tau for f in fits]),
        components=np.array([f.components for f in fits], dtype=np.int64),
        population=population,
        population_tau=fit_timescale(population).tau,
        control_tau=np.array(shuffled),
        provenance=Provenance(
            model=provenance.model if provenance else system,
            weights_hash=provenance.weights_hash if provenance else None,
            seed=seed,
            settings={"trials": len(activity), "time": time, "units": units, "lags": longest},
            control="each unit's series in random order",
        ),
    )


def autocorrelation(
    activity: Float64[np.ndarray, "trials time units"], lags: int
) -> Float64[np.ndarray, "lags_and_zero units"]:
    """Correlation of each unit with itself 0 to `lags` steps later: products averaged over the pairs there are and
    over trials, by the variance. NaN for a unit that does not move."""
    time = activity.shape[1]
    centred = activity - activity.mean((0, 1))
    spectrum = np.fft.rfft(centred, 2 * time, axis=1)
    products = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, : lags + 1].mean(0)
    products = products / (time - np.arange(lags + 1))[:, None]
    moves = products[0] > 1e-20 * np.maximum(1, np.abs(activity).max((0, 1))) ** 2
    return products / np.where(moves, products[0], np.nan)


def fit_timescale(correlation: Float64[np.ndarray, " lags"]) -> Fit:
    """One or two exponentials through a correlation from lag 0, the better by AIC = 2 k + n ln RSS.

    Ours: n counts independent lags, and lags after the correlation first falls below `_GONE` are left out;
    what is there
    is the noise of a finite series, and a second exponential would be fitted to it.
    """
    from scipy.optimize import OptimizeWarning, curve_fit

    if not np.isfinite(correlation).all() or correlation[1] <= 0:
        return Fit(float("nan"), 0)
    faded = np.nonzero(correlation < _GONE)[0]
    correlation = correlation[: max(6, int(faded[0]))] if len(faded) else correlation
    lag = np.arange(len(correlation), dtype=np.float64)
    slowest = _SLOWEST * len(lag)
    # The first zero crossing is noise's, and gives a start for the slope.
    below = np.nonzero(correlation < np.exp(-1))[0]
    guess = float(np.clip(below[0] if len(below) else len(lag), 0.5, slowest / 2))
    # Neighbouring lags err together, so there are fewer independent ones than the criterion would count.
    independent = max(1.0, len(lag) / (2 * guess))
    candidates: list[tuple[float, Fit]] = []
    fits: list[tuple[Any, list[float], tuple[list[float], list[float]]]] = [
        (_one, [1.0, guess], ([0, 0.05], [1.5, slowest])),
        (_two, [0.5, guess / 3, 0.5, guess], ([0, 0.05, 0, 0.05], [1.5, slowest, 1.5, slowest])),
    ]
    for curve, start, bounds in fits:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OptimizeWarning)
            try:
                found, _ = curve_fit(curve, lag, correlation, p0=start, bounds=bounds, maxfev=2000)
            except RuntimeError:
                # No convergence within the budget: this curve is no candidate.
                continue
        residual = max(float(np.square(curve(lag, *found) - correlation).sum()), 1e-30)
        # A component that carries nothing has no timescale.
        weights, taus = found[0::2], found[1::2]
        tau = float(taus[weights > _GONE * weights.sum()].max())
        candidates.append((2 * len(start) + independent * float(np.log(residual)), Fit(tau, len(taus))))
    return min(candidates)[1] if candidates else Fit(float("nan"), 0)


def _one(lag: np.ndarray, weight: float, tau: float) -> np.ndarray:
    return weight * np.exp(-lag / tau)


def _two(lag: np.ndarray, first: float, fast: float, second: float, slow: float) -> np.ndarray:
    return first * np.exp(-lag / fast) + second * np.exp(-lag / slow)
