"""Oracle: cycles in closed form: the 2-cycle of tanh(-2x), and the logistic map's points sin^2(pi k / (2^n -+ 1))."""

import numpy as np
import pytest
import torch

from strobe.probes.fixed_points import fixed_points, from_function, iterated


def test_a_two_cycle_and_its_multiplier():
    flip = from_function(lambda x: torch.tanh(-2 * x), 1, box=torch.ones(1, dtype=torch.float64))
    once, twice = fixed_points(flip, n_initial=32), fixed_points(iterated(flip, 2), n_initial=32)
    np.testing.assert_allclose(once.points, [[0.0]], atol=1e-12)
    np.testing.assert_allclose(np.sort(twice.points[:, 0]), [-0.9575040240772687, 0, 0.9575040240772687], atol=1e-10)
    np.testing.assert_allclose(np.sort(np.abs(twice.eigenvalues[:, 0])), [0.0276797, 0.0276797, 4], atol=1e-7)
    assert twice.index_sum == 1


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_every_point_of_the_logistic_maps_cycles(n):
    logistic = from_function(lambda x: 4 * x * (1 - x), 1)
    start = torch.linspace(0.0005, 0.9995, 400, dtype=torch.float64)[:, None]
    found = fixed_points(iterated(logistic, n), start)
    k = np.arange(2 ** (n - 1) + 1)
    angles = np.concatenate([k / (2**n - 1), k / (2**n + 1)])
    expected = np.unique(np.sin(np.pi * angles[angles <= 0.5]).round(14) ** 2)
    np.testing.assert_allclose(np.sort(found.points[:, 0]), expected, atol=1e-10)
    assert len(found.points) == 2**n
    slopes = np.sort(np.abs(found.eigenvalues[:, 0]))
    np.testing.assert_allclose(slopes[:-1], 2.0**n, rtol=1e-8)
    np.testing.assert_allclose(slopes[-1], 4.0**n, rtol=1e-8)


def test_fewer_than_one_step_is_refused():
    with pytest.raises(ValueError, match="give 1 or more"):
        iterated(from_function(torch.tanh, 1), 0)
