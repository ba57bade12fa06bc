"""Oracle: an AR(1) process, whose autocorrelation is phi^lag and whose timescale -1 / ln phi."""

import numpy as np
import pytest

from strobe.core.result import load_result
from strobe.probes.dynamics.timescales import autocorrelation, autocorrelation_timescales, fit_timescale


def ar1(phi, trials=60, time=800, units=4, seed=0):
    rng = np.random.default_rng(seed)
    x = np.zeros((trials, time + 200, units))
    for t in range(1, time + 200):
        x[:, t] = phi * x[:, t - 1] + rng.normal(size=(trials, units))
    return x[:, 200:]


def test_an_ar1_process_has_its_timescale_within_ten_percent():
    found = autocorrelation_timescales(ar1(0.9, trials=200, units=3), lags=60)
    np.testing.assert_allclose(found.tau, -1 / np.log(0.9), rtol=0.1)
    assert found.population_tau == pytest.approx(-1 / np.log(0.9), rel=0.05)
    has = found.control_tau[np.isfinite(found.control_tau)]
    assert (has < 2).all()


def test_the_products_are_averaged_over_the_pairs_there_are():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 50, 2))
    centred = x - x.mean((0, 1))
    expected = [np.mean(centred[:, : 50 - k] * centred[:, k:], axis=(0, 1)) for k in range(6)]
    np.testing.assert_allclose(autocorrelation(x, 5), np.array(expected) / expected[0], atol=1e-12)


def test_the_slower_of_two_exponentials_is_reported_and_two_are_chosen():
    lag = np.arange(80.0)
    noise = 1e-3 * np.random.default_rng(0).normal(size=80)
    two = fit_timescale(0.6 * np.exp(-lag / 2) + 0.4 * np.exp(-lag / 20) + noise)
    assert two.components == 2
    assert two.tau == pytest.approx(20, rel=0.05)
    one = fit_timescale(np.exp(-lag / 7) + noise)
    assert one.tau == pytest.approx(7, rel=0.05)


def test_a_unit_that_does_not_move_has_no_timescale_and_is_counted():
    x = ar1(0.8, trials=10, time=200, units=3)
    x[:, :, 1] = 2.5
    found = autocorrelation_timescales(x)
    assert np.isnan(found.tau[1])
    assert np.isfinite(found.tau[[0, 2]]).all()
    assert np.isfinite(found.population_tau)
    assert "1 of 3 units have none" in found.summary()


def test_bad_activity_is_refused_and_a_result_comes_back(tmp_path):
    with pytest.raises(ValueError, match="not finite"):
        autocorrelation_timescales(np.full((1, 20, 1), np.nan))
    with pytest.raises(ValueError, match="8 steps"):
        autocorrelation_timescales(np.zeros((1, 5, 1)))
    found = autocorrelation_timescales(ar1(0.5, trials=4, time=100, units=2))
    assert load_result(found.save(tmp_path / "tau.safetensors")) == found
    assert len(found.figure().data) == 2
