"""Do two series come from the same dynamics? Compared by where they spend time, and by what frequencies they have.

A point-by-point error says nothing about a chaotic system after a few steps. Two measures that do (Hess et al. 2023,
arXiv 2306.04406, appendix; Mikhaeil et al. 2022):

- `d_stsp`: Kullback-Leibler divergence, in nats, between histograms of the visited states.
- `d_hellinger`: Hellinger distance, 0 to 1, between smoothed power spectra, channel by channel.

Both are 0 for the same series and grow as it becomes another.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

Series = Float64[np.ndarray, "_ _"]

# Per bin, so that a bin no generated point fell into costs much and not everything.
_ADDED = 1e-5
# A histogram of more bins than this says nothing with the points one has.
_MOST_BINS = 10_000_000


class Divergence(NamedTuple):
    """`value` in nats, infinite where no generated point is in range; `outside`: share of generated points out of the
    data's range. They fall into no bin, so the value alone would not count them."""

    value: float
    outside: float


def d_stsp(data: Series, generated: Series, *, bins: int = 30) -> Divergence:
    """KL(data || generated) over `bins` bins a channel that reach 0.1 standard deviations beyond the data.

    Raises ValueError for other numbers of channels, and for more channels than a histogram can have (mixtures of
    Gaussians, which the paper takes from six on, are not here).
    """
    _check(data, generated)
    channels = data.shape[1]
    if bins**channels > _MOST_BINS:
        raise ValueError(
            f"a histogram of {bins} bins in each of {channels} channels was asked for; compare up to "
            f"{int(np.log(_MOST_BINS) / np.log(bins))} channels, such as the first principal components"
        )
    margin = 0.1 * data.std(0)
    low, high = data.min(0) - margin, data.max(0) + margin
    inside = ((generated >= low) & (generated <= high)).all(1)
    outside = 1 - float(inside.mean())
    if not inside.any():
        return Divergence(float("inf"), outside)
    p, q = (_histogram(x, low, high, bins) for x in (data, generated[inside]))
    return Divergence(float(np.sum(p * np.log(p / q))), outside)


def d_hellinger(data: Series, generated: Series, *, smoothing: float | int = 20.0) -> float:
    """Mean over channels of the Hellinger distance between power spectra, smoothed over `smoothing` frequency bins.

    The longer series is cut to the length of the shorter. A channel that does not move has no spectrum: NaN.
    """
    _check(data, generated)
    length = min(len(data), len(generated))
    p, q = _spectrum(data[:length], smoothing), _spectrum(generated[:length], smoothing)
    return float(np.sqrt(np.maximum(0, 1 - np.sqrt(p * q).sum(0))).mean())


def _histogram(x: Series, low: np.ndarray, high: np.ndarray, bins: int) -> np.ndarray:
    cell = np.minimum(((x - low) / (high - low) * bins).astype(np.int64), bins - 1)
    flat = np.ravel_multi_index(tuple(cell.T), (bins,) * x.shape[1])
    counts = np.bincount(flat, minlength=bins ** x.shape[1])
    return (counts + _ADDED) / (len(x) + _ADDED * len(counts))


def _spectrum(x: Series, smoothing: float | int) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    spread = x.std(0)
    # A channel at rest is NaN throughout: its z-score would be 0 / 0.
    z = (x - x.mean(0)) / np.where(spread > 0, spread, np.nan)
    power = np.abs(np.fft.rfft(z, axis=0)) ** 2
    power = gaussian_filter1d(power, float(smoothing), axis=0)
    return power / power.sum(0)


def _check(data: Series, generated: Series) -> None:
    if data.shape[1:] != generated.shape[1:] or len(data) < 2 or len(generated) < 2:
        raise ValueError(
            f"series {data.shape} and {generated.shape} were given; both have to be [time, channels] with the same "
            "channels and at least two steps"
        )
    for name, x in (("data", data), ("generated", generated)):
        if not np.isfinite(x).all():
            raise ValueError(f"the {name} series is not finite throughout; cut it where it runs away and say so")
