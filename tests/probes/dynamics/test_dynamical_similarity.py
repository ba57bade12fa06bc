"""Oracle: equal series are at distance 0, two independent Gaussians at the divergence of their histograms' integral, a
point at the most there can be, and spectra without overlap at 1.
"""

import numpy as np
import pytest

from strobe.probes.dynamics.dynamical_similarity import d_hellinger, d_stsp

RNG = np.random.default_rng(0)


def test_the_same_series_is_at_distance_0():
    x = RNG.normal(size=(5000, 2))
    assert d_stsp(x, x).value == pytest.approx(0, abs=1e-12)
    assert d_hellinger(x, x) == pytest.approx(0, abs=1e-6)


def test_two_uniform_distributions_have_the_divergence_of_their_densities():
    # Half of the generated points in the lower half, where 0.8 of the data are: KL = .8 ln(.8/.5) + .2 ln(.2/.5).
    data = np.concatenate([RNG.uniform(0, 0.5, 80_000), RNG.uniform(0.5, 1, 20_000)])[:, None]
    made = np.concatenate([RNG.uniform(0, 0.5, 50_000), RNG.uniform(0.5, 1, 50_000)])[:, None]
    expected = 0.8 * np.log(0.8 / 0.5) + 0.2 * np.log(0.2 / 0.5)
    assert d_stsp(data, made).value == pytest.approx(expected, rel=0.05)


def test_a_fixed_point_is_as_far_as_can_be_and_noise_between():
    x = RNG.normal(size=(5000, 2)).cumsum(0) % 7
    still = np.repeat(x[:1], 5000, 0)
    assert d_stsp(x, still).value > 10 > d_stsp(x, RNG.normal(3.5, 2, (5000, 2))).value > 0.02


def test_points_outside_the_range_are_counted_and_not_lost():
    x = RNG.uniform(size=(1000, 1))
    found = d_stsp(x, np.concatenate([x, x + 50]))
    assert found.outside == 0.5
    assert found.value == pytest.approx(0, abs=1e-3)
    assert d_stsp(x, x + 50) == (float("inf"), 1.0)


def test_frequencies_without_overlap_are_at_distance_1():
    t = np.arange(4000)
    slow, fast = np.sin(2 * np.pi * t / 100)[:, None], np.sin(2 * np.pi * t / 10)[:, None]
    assert d_hellinger(slow, fast) == pytest.approx(1, abs=1e-3)
    assert d_hellinger(slow, np.cos(2 * np.pi * t / 100)[:, None]) < 0.05
    # Smoothing in the denominator too: a spectrum and itself, louder.
    assert d_hellinger(slow, 3 * slow) < 1e-6


def test_half_of_the_power_elsewhere_is_at_its_closed_form():
    # Spectra (1, 0) and (1/2, 1/2): the distance is sqrt(1 - sqrt(1/2)).
    t = np.arange(4000)
    one, other = np.sin(2 * np.pi * t / 100)[:, None], np.sin(2 * np.pi * t / 10)[:, None]
    assert d_hellinger(one, one + other) == pytest.approx(np.sqrt(1 - np.sqrt(0.5)), abs=0.01)
    assert d_hellinger(one, one + other, smoothing=5) == pytest.approx(np.sqrt(1 - np.sqrt(0.5)), abs=0.01)


def test_what_cannot_be_compared_is_refused():
    x = np.zeros((10, 2))
    with pytest.raises(ValueError, match="same channels"):
        d_stsp(x, np.zeros((10, 3)))
    with pytest.raises(ValueError, match="first principal components"):
        d_stsp(np.zeros((10, 9)), np.zeros((10, 9)))
    with pytest.raises(ValueError, match="generated series is not finite"):
        d_hellinger(x, x + np.inf)
