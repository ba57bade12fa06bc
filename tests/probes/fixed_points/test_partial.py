"""Oracle: the same analysis asked of the part that was reached."""

import math

import numpy as np
import pytest
import torch
from cutting import stopped_after

from strobe.probes.fixed_points import basins, continua, cycles, fixed_points, from_function, unstable_manifolds
from strobe.probes.fixed_points.cells import elman


def latches(n=3):
    return from_function(lambda x: torch.tanh(2 * x), n, box=torch.ones(n, dtype=torch.float64), name="latches")


@pytest.fixture(scope="module")
def cube():
    return fixed_points(latches(), n_initial=128)


def test_basins_cut_short_are_those_of_the_carries_that_were_run(cube):
    start = torch.randn(700, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = basins(latches(), cube, start)
    assert stopped_after(lambda **how: basins(latches(), cube, start, **how), 1) is None
    found = stopped_after(lambda **how: basins(latches(), cube, start, **how), 3)
    assert len(found.starts) == 512
    for name in ("starts", "labels", "steps", "nearest"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[:512])
    np.testing.assert_allclose(found.shares.sum(), 1)
    assert "cut short after 512 of 700 carries" in found.summary() and not whole.partial
    assert found.figure().layout.title.subtitle.text.startswith("cut short after 512 of 700 carries")


def test_unstable_directions_cut_short_are_those_of_the_saddles_that_were_reached(cube):
    def ask(**how):
        return unstable_manifolds(latches(), cube, highest=3, **how)

    whole, found = ask(), stopped_after(ask, 3)
    assert len(whole.saddles) == 19 and len(found.saddles) == 8
    np.testing.assert_array_equal(found.indices, whole.indices[:8])
    branches = int((whole.of < 8).sum())
    for name in ("of", "eigenvalues", "sides", "ends", "near"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[:branches])
    # Branches of other saddles beside them change the order in which rows are multiplied, no more.
    np.testing.assert_allclose(found.paths, whole.paths[:branches], atol=1e-12)
    assert set(found.joined()) == set(found.which.tolist())
    assert "cut short after 8 of 19 saddles" in found.summary() and not whole.partial


def test_cycles_cut_short_have_the_lengths_that_both_searches_finished():
    R = torch.tensor([[0.0, -1.8], [1.8, 0.0]], dtype=torch.float64)
    system = elman(R, torch.zeros(2, dtype=torch.float64), name="turns")

    def ask(lengths, **how):
        return cycles(system, lengths, n_initial=64, **how)

    # Each length is told twice, the control's search first: the fourth length's control is not finished.
    found, fresh, whole = stopped_after(lambda **how: ask((1, 2, 3, 4), **how), 8), ask((1, 2, 3)), ask((1, 2, 3, 4))
    assert found.searched == [1, 2, 3] and found.control.searched == [1, 2, 3]
    for name in ("periods", "points", "of", "multipliers", "hits", "escaped", "failed"):
        np.testing.assert_array_equal(getattr(found, name), getattr(fresh, name))
        np.testing.assert_array_equal(getattr(found.control, name), getattr(fresh.control, name))
    assert whole.counts()[4] >= 1
    assert "cut short after 3 of 4 lengths" in found.summary() and not whole.partial


def test_curves_cut_short_are_those_that_were_followed():
    def step(x):
        # Two rings, one in each pair of coordinates at rest.
        r = x[:, :2].norm(dim=-1, keepdim=True)
        return torch.cat([x[:, :2] * (1 + 0.1 * (1 - r**2) * (4 - r**2)), 0.5 * x[:, 2:]], 1)

    system = from_function(step, 3)
    start = torch.tensor([[0.9, 0.5, 0.0], [2.0, 0.1, 0.0]], dtype=torch.float64)
    points = fixed_points(system, start, rounds=0)
    whole = continua(system, points)
    assert whole.shapes == ["ring", "ring"]
    found = stopped_after(lambda **how: continua(system, points, **how), 2)
    assert found.shapes == ["ring"] and found.lengths[0] == whole.lengths[0]
    np.testing.assert_allclose(sorted(whole.lengths), [2 * math.pi, 4 * math.pi], rtol=2e-3)
    assert "cut short after 1 of 2 points" in found.summary() and not whole.partial
