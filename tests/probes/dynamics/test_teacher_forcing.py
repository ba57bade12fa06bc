"""Oracle: a rotation, which a free run has to follow; scores that are given; alpha's rule by hand."""

import numpy as np
import pytest

from strobe.probes.dynamics.forced_run import ClippedPLRNN
from strobe.probes.dynamics.teacher_forcing import Forcing, fit_by_forcing, next_alpha


def test_a_rotation_is_learned_and_the_best_look_is_kept():
    t = 0.2 * np.arange(600)
    series = np.stack([np.cos(t), np.sin(t)], 1)

    def watch(map):
        z, error = series[0], 0.0
        for truth in series[1:60]:
            z = map.step(z)
            error += float(np.square(z - truth).mean()) / 59
        return min(error, 1e6)

    settings = {"hidden": 16, "length": 8, "updates": 300, "watch_every": 100, "learning_rates": (3e-2, 3e-3)}
    done = fit_by_forcing(series, Forcing(**settings, start="random", alpha=0.1), watch)
    assert watch(done.map) == done.scores[:, 1].min()
    assert watch(done.map) < 0.3 * watch(done.start)
    assert done.losses[-20:].mean() < 0.1 * done.losses[:5].mean()
    np.testing.assert_array_equal(done.start.W1, ClippedPLRNN(2, 16).as_map().W1)
    assert (done.alphas == 0.1).all()
    # A rotation is linear, so the regression alone has it.
    assert watch(fit_by_forcing(series, Forcing(**settings | {"updates": 1}), watch).start) < 1e-4


def test_alpha_rises_at_once_and_falls_slowly():
    assert next_alpha(0.2, 0.7) == 0.7
    assert next_alpha(0.5, 0.1) == pytest.approx(0.5 - 0.001 * 0.4)


def test_an_adaptive_alpha_begins_at_one_and_falls_every_fifth_update_to_what_the_map_asks_for():
    # Of white noise the best map has no slope at all, which asks for no pull.
    series = np.random.default_rng(0).normal(size=(400, 1))
    done = fit_by_forcing(series, Forcing(hidden=2, length=5, updates=16, alpha="adaptive"), lambda _: 0.0)
    np.testing.assert_allclose(done.alphas, 0.999 ** (1 + np.arange(16) // 5))


def test_of_several_looks_the_best_is_kept():
    seen, scores = [], [3.0, 1.0, 2.0]

    def watch(map):
        seen.append(map)
        return scores[len(seen) - 1]

    series = np.random.default_rng(0).normal(size=(60, 1))
    done = fit_by_forcing(series, Forcing(hidden=2, length=5, updates=6, watch_every=2), watch)
    assert done.map is seen[1]
    assert done.scores.tolist() == [[2, 3], [4, 1], [6, 2]]


def test_settings_that_make_no_fit_are_refused():
    with pytest.raises(ValueError, match="alpha=2"):
        Forcing(alpha=2.0)
    with pytest.raises(ValueError, match="alpha=often"):
        Forcing(alpha="often")
    with pytest.raises(ValueError, match="start='zero'"):
        Forcing(start="zero")
    with pytest.raises(ValueError, match="windows of 101"):
        fit_by_forcing(np.zeros((50, 2)), Forcing(), lambda _: 0.0)
    with pytest.raises(ValueError, match="no look at the fit was finite"):
        fit_by_forcing(np.random.default_rng(0).normal(size=(60, 1)), Forcing(length=5, updates=2), lambda _: np.inf)
