"""`travelling_waves`: does activity move across the units, or stand and beat in place?

Complex orthogonal decomposition (Feeny 2008, "A complex orthogonal decomposition for wave motion analysis", J. Sound
and Vibration 310): the activity is made analytic in time, and the eigenvectors of its covariance over units are its
modes. A mode with all its units in phase or in antiphase stands; one whose phase turns along the units travels. Feeny's
*travelling index* is the ratio of the smaller to the larger singular value of the mode's real and imaginary parts: 0
for a standing wave, 1 for a purely travelling one. It does not ask in which order the units are.

Where units have places (`positions`), the wave number that fits the mode's phase best is sought, and the share of the
mode it explains. Its control, ours: the same with the places permuted. (Periodic activity of any kind has phases; only
along the places do they make a wave.)
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Complex128, Float64

from strobe.core import figures
from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.core.tokens import escape_plotly

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_DRAWS = 200


@dataclass(frozen=True)
class Waves(Result):
    """Modes of the activity, largest first.

    `modes` [modes, units] complex: amplitude and phase of each unit. `shares` [modes]: of the variance.
    `travelling_index` [modes]: 0 stands, 1 travels. `frequencies` [modes]: cycles per step. `positions` [units]: places
    in units of length. `wave_numbers` [modes]: cycles per unit of length, signed; positive means that the crests move
    towards larger positions. `fits` [modes]: the share of the mode that a plane wave of that number explains, 0 to 1.
    `control_fits` [modes, draws]: the best plane wave's share with the places permuted.
    """

    system: str
    modes: Complex128[np.ndarray, "modes units"]
    shares: Float64[np.ndarray, " modes"]
    travelling_index: Float64[np.ndarray, " modes"]
    frequencies: Float64[np.ndarray, " modes"]
    positions: Float64[np.ndarray, " units"]
    wave_numbers: Float64[np.ndarray, " modes"]
    fits: Float64[np.ndarray, " modes"]
    control_fits: Float64[np.ndarray, "modes draws"]

    @property
    def speeds(self) -> Float64[np.ndarray, " modes"]:
        """Phase speed of each mode: frequency over wave number, in units of length per step."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.frequencies / self.wave_numbers

    @property
    def is_wave(self) -> np.ndarray:
        """Whether each mode travels along the places: index above one half (ours), and a plane wave explains more than
        with any permutation of the places."""
        return (self.travelling_index > 0.5) & (self.fits > self.control_fits.max(1))

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Phase of the largest mode along the places, the size of a marker its amplitude."""
        import plotly.graph_objects as go

        mode = self.modes[0]
        size = 4 + 14 * np.abs(mode) / np.abs(mode).max()
        fig = go.Figure(
            go.Scatter(
                x=self.positions,
                y=np.angle(mode) / (2 * np.pi),
                mode="markers",
                name="largest mode",
                marker={"size": size, "color": figures.colors(template)[0]},
            )
        )
        said = "travels" if self.is_wave[0] else "does not travel along the places"
        note = (
            f"it {said}: travelling index {self.travelling_index[0]:.2f}, plane wave {self.fits[0]:.0%} of it; "
            f"control, places permuted: at most {self.control_fits[0].max():.0%}"
        )
        fig.update_layout(
            title={"text": f"Largest mode of {escape_plotly(self.system)}", "subtitle": {"text": note}},
            margin={"t": 84},
        )
        fig.update_xaxes(title_text="place of the unit")
        fig.update_yaxes(title_text="phase (cycles)", range=[-0.55, 0.55])
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row a mode."""
        import pandas as pd

        return pd.DataFrame(
            {
                "mode": np.arange(1, len(self.shares) + 1),
                "share": self.shares,
                "travelling_index": self.travelling_index,
                "frequency": self.frequencies,
                "wave_number": self.wave_numbers,
                "speed": self.speeds,
                "plane_wave": self.fits,
                "plane_wave_control": self.control_fits.max(1),
                "travels": self.is_wave,
            }
        )

    def summary(self) -> str:
        """The modes in a line each, and the provenance."""
        lines = [f"modes of {self.system}"] + [
            f"  mode {row['mode']}: {row['share']:.0%} of the variance, "
            f"travelling index {row['travelling_index']:.2f}, "
            f"{row['frequency']:.3g} cycles per step; plane wave {row['plane_wave']:.0%} against "
            f"{row['plane_wave_control']:.0%} in the control"
            for row in self.to_frame().to_dict("records")
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def travelling_waves(
    activity: Float64[np.ndarray, "time units"],
    *,
    positions: Float64[np.ndarray, " units"] | None = None,
    n_modes: int = 3,
    system: str = "activity",
    provenance: Provenance | None = None,
    seed: int = 0,
) -> Waves:
    """Modes of `activity` and whether they travel along `positions` (None: the units' numbers, evenly spaced).

    Raises ValueError for activity that is not finite or does not move, or fewer than 3 units or 16 steps.
    """
    from scipy.signal import hilbert

    time, units = activity.shape
    if time < 16 or units < 3 or not np.isfinite(activity).all() or not np.ptp(activity, axis=0).any():
        raise ValueError(
            f"activity of {time} steps in {units} units was given; give at least 16 steps of 3 units, finite numbers "
            "that move"
        )
    places = np.arange(units, dtype=np.float64) if positions is None else positions
    analytic = np.asarray(hilbert(activity - activity.mean(0), axis=0))
    left, sizes, right = np.linalg.svd(analytic, full_matrices=False)
    n_modes = min(n_modes, int((sizes > 1e-9 * sizes[0]).sum()))
    # The rows of `right` multiply the units; a mode is their amplitude and phase at one time.
    modes = right[:n_modes]
    parts = [np.linalg.svd(np.stack([m.real, m.imag]), compute_uv=False) for m in modes]
    turns = np.angle(left[1:, :n_modes] * left[:-1, :n_modes].conj())
    frequencies = (turns * np.abs(left[:-1, :n_modes]) ** 2).sum(0) / (
        (np.abs(left[:-1, :n_modes]) ** 2).sum(0) * 2 * np.pi
    )
    rng = np.random.default_rng(seed)
    numbers = _wave_numbers(places)
    fits = _shares(modes, places, numbers)
    # Permuting a mode over the places is permuting the places.
    orders = np.array([rng.permutation(units) for _ in range(_DRAWS)])
    control = np.array([_shares(m[orders], places, numbers).max(1) for m in modes])
    return Waves(
        system=system,
        modes=modes.astype(np.complex128),
        shares=(sizes**2 / (sizes**2).sum())[:n_modes],
        travelling_index=np.array([p[1] / p[0] for p in parts]),
        frequencies=np.abs(frequencies),
        positions=places,
        # A crest sits where phase k x + 2 pi f t is constant, so it moves against the sign of k at positive f.
        wave_numbers=-numbers[fits.argmax(1)] * np.sign(frequencies),
        fits=fits.max(1),
        control_fits=control,
        provenance=Provenance(
            model=provenance.model if provenance else system,
            weights_hash=provenance.weights_hash if provenance else None,
            seed=seed,
            settings={"time": time, "units": units, "modes": n_modes, "positions": positions is not None},
            control=f"places permuted, {_DRAWS} draws",
        ),
    )


def _wave_numbers(places: np.ndarray) -> np.ndarray:
    """Steps of a quarter of a cycle over the whole span, up to half a cycle between neighbours; 0 is no wave."""
    steps = np.arange(-2 * (len(places) - 1), 2 * (len(places) - 1) + 1)
    return steps[steps != 0] / (4 * np.ptp(places))


def _shares(
    modes: Complex128[np.ndarray, "draws units"], places: np.ndarray, numbers: np.ndarray
) -> Float64[np.ndarray, "draws numbers"]:
    """The share of each mode that a plane wave of each number explains."""
    waves = np.exp(-2j * np.pi * numbers * places[:, None])
    power = np.square(np.abs(modes)).sum(1, keepdims=True)
    return np.square(np.abs(modes @ waves)) / (len(places) * power)
