"""Oracle: linear systems, whose eigenvalues DMD returns exactly; a polynomial system that closes in its dictionary."""

import numpy as np
import pytest

from strobe.core.result import load_result
from strobe.probes.dynamics.koopman import dynamic_modes
from strobe.probes.dynamics.lran import Autoencoding, linearly_recurrent_autoencoder


def linear(A, runs=3, time=60, seed=0):
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(runs, len(A)))]
    for _ in range(time - 1):
        x.append(x[-1] @ A.T)
    return np.stack(x, 1)


TURN = 0.98 * np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
A3 = np.block([[TURN, np.zeros((2, 1))], [np.zeros((1, 2)), np.array([[0.9]])]])


def test_a_rank_3_system_in_50_dimensions_has_its_eigenvalues():
    basis = np.linalg.qr(np.random.default_rng(1).normal(size=(50, 3)))[0]
    # Runs around a common mean: what is subtracted is the mean of all, and runs of opposite sign cancel in it.
    x = linear(A3)
    x = np.concatenate([x, -x]) @ basis.T
    found = dynamic_modes(x)
    expected = sorted([0.98 * np.exp(0.3j), 0.98 * np.exp(-0.3j), 0.9], key=lambda v: (v.real, v.imag))
    actual = sorted(found.eigenvalues, key=lambda v: (v.real, v.imag))
    np.testing.assert_allclose(actual, expected, atol=1e-8)
    assert found.errors.max() < 1e-12
    assert found.persistence[-1] > 0.1
    # Each mode is an eigenvector of the full map.
    full = basis @ A3 @ basis.T
    for value, mode in zip(found.eigenvalues, found.modes, strict=True):
        np.testing.assert_allclose(full @ mode, value * mode, atol=1e-8)
    # On the axes a mode is an eigenvector of unit length.
    np.testing.assert_allclose(np.linalg.norm(found.modes, axis=1), 1, atol=1e-8)


def test_units_of_time():
    x = linear(TURN)
    found = dynamic_modes(np.concatenate([x, -x]), dt=0.1)
    np.testing.assert_allclose(found.growth, np.log(0.98) / 0.1, atol=1e-8)
    np.testing.assert_allclose(found.frequencies, 0.3 / (2 * np.pi * 0.1), atol=1e-8)


def test_delays_stand_for_what_is_not_measured():
    x = linear(TURN)
    x = np.concatenate([x, -x])[:, :, :1]
    alone, delayed = dynamic_modes(x), dynamic_modes(x, delays=2)
    assert alone.errors[-1] > 0.05
    assert delayed.errors.max() < 1e-10
    np.testing.assert_allclose(np.abs(delayed.eigenvalues), 0.98, atol=1e-8)


def test_a_dictionary_that_closes_the_system_has_its_eigenvalues():
    # x' = .9 x, y' = .5 y + x^2 (as in Brunton et al. 2016): linear in (x, y, x^2), eigenvalues .9, .5, .81.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    states = []
    for _ in range(40):
        states.append(np.stack([x, y], -1))
        x, y = 0.9 * x, 0.5 * y + x**2
    series = np.stack(states, 1)
    found = dynamic_modes(series, lift=lambda s: np.column_stack([s, s[:, :1] ** 2]), held_out=0.4)
    np.testing.assert_allclose(np.sort(found.eigenvalues.real), [0.5, 0.81, 0.9], atol=1e-8)
    assert found.errors.max() < 1e-12


def test_a_random_walk_is_predicted_no_better_than_by_persistence():
    walk = np.random.default_rng(0).normal(size=(8, 400, 3)).cumsum(1)
    found = dynamic_modes(walk)
    assert found.errors[-1] > 0.8 * found.persistence[-1]


def test_an_autoencoder_learns_a_rotation():
    x = linear(TURN / 0.98, runs=6, time=80)
    settings = Autoencoding(observables=4, hidden=16, updates=500, window=3, learning_rate=1e-2)
    found = linearly_recurrent_autoencoder(x, settings, horizons=(1, 5))
    assert found.errors[1] < 0.2 * found.persistence[1]
    assert np.abs(np.abs(np.angle(found.eigenvalues)) - 0.3).min() < 0.05


def test_bad_series_are_refused_and_a_result_comes_back(tmp_path):
    with pytest.raises(ValueError, match="longer runs"):
        dynamic_modes(np.zeros((1, 12, 2)))
    with pytest.raises(ValueError, match="does not move"):
        dynamic_modes(np.zeros((1, 90, 2)))
    with pytest.raises(ValueError, match="first columns"):
        dynamic_modes(linear(A3), lift=lambda s: s**2)
    found = dynamic_modes(linear(A3))
    assert load_result(found.save(tmp_path / "modes.safetensors")) == found
    assert "persistence" in found.summary()
    assert found.figure().data[0].name == "nothing changes (control)"
