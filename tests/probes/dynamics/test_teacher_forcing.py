"""Oracle: the forcing equation by hand at alpha 0, 1 and between; a rotation, which a free run has to follow."""

import numpy as np
import pytest
import torch

from strobe.probes.dynamics.teacher_forcing import ClippedPLRNN, Forcing, fit_by_forcing, forced_run


def test_the_forced_run_steps_from_the_mixture():
    model, x = ClippedPLRNN(2, 7, seed=1), torch.randn(3, 4, 2)
    with torch.no_grad():
        z, expected = x[:, 0], []
        for t in range(3):
            z = model(z if t == 0 else 0.7 * z + 0.3 * x[:, t])
            expected.append(z)
        torch.testing.assert_close(forced_run(model, x, 0.3), torch.stack(expected, 1))
        # At alpha 1 every prediction is one step from the data.
        each = model(x[:, :3].reshape(-1, 2)).view(3, 3, 2)
        torch.testing.assert_close(forced_run(model, x, 1.0), each)


def test_gradients_through_a_forced_run_are_damped_by_one_minus_alpha_a_step():
    model = ClippedPLRNN(1, 1)
    with torch.no_grad():
        model.A.fill_(2.0)
        model.W1.zero_()
    x = torch.zeros(1, 6, 1)
    for alpha in (0.0, 0.5):
        start = torch.ones(1, 1, requires_grad=True)
        forced_run(model, torch.cat([start[:, None], x[:, 1:]], 1), alpha)[0, -1].backward()
        assert start.grad is not None
        assert float(start.grad) == pytest.approx(2 * (2 * (1 - alpha)) ** 4)


def test_the_map_is_the_module():
    model, z = ClippedPLRNN(3, 5, seed=2), torch.randn(4, 3)
    with torch.no_grad():
        np.testing.assert_allclose(model.as_map().step(z.double().numpy()), model(z).numpy(), atol=1e-5)


def test_a_rotation_is_learned_and_the_best_look_is_kept():
    t = 0.2 * np.arange(600)
    series = np.stack([np.cos(t), np.sin(t)], 1)

    def watch(map):
        z, error = series[0], 0.0
        for truth in series[1:60]:
            z = map.step(z)
            error += float(np.square(z - truth).mean()) / 59
        return min(error, 1e6)

    done = fit_by_forcing(
        series, Forcing(hidden=16, length=8, updates=300, watch_every=100, learning_rates=(3e-2, 3e-3)), watch
    )
    assert watch(done.map) == done.scores[:, 1].min()
    assert watch(done.map) < 0.3 * watch(ClippedPLRNN(2, 16).as_map())
    assert done.losses[-20:].mean() < 0.1 * done.losses[:5].mean()


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
    with pytest.raises(ValueError, match="windows of 101"):
        fit_by_forcing(np.zeros((50, 2)), Forcing(), lambda _: 0.0)
    with pytest.raises(ValueError, match="no look at the fit was finite"):
        fit_by_forcing(np.random.default_rng(0).normal(size=(60, 1)), Forcing(length=5, updates=2), lambda _: np.inf)
