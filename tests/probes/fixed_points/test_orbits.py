"""Oracle: maps whose basins, unstable manifolds, lines and rings are known in closed form.

tanh(2h) in three units: the signs decide where a carry ends, and each saddle on an edge joins the two corners of it.
r + .1 r (1 - r^2): the unit circle stands still. tanh(W h) with a cosine kernel: a ring that gets finer with its units.
"""

import math

import numpy as np
import pytest
import torch

import strobe
from strobe.probes.fixed_points import (
    Basins,
    Continua,
    UnstableManifolds,
    basins,
    continua,
    fixed_points,
    from_function,
    unstable_manifolds,
)
from strobe.probes.fixed_points.cells import elman
from strobe.probes.fixed_points.rolling import ELSEWHERE, ESCAPED, PERIODIC, roll_out

ROOT = 0.9575040240772687


def latches():
    return from_function(lambda x: torch.tanh(2 * x), 3, box=torch.ones(3, dtype=torch.float64), name="latches")


@pytest.fixture(scope="module")
def cube():
    return fixed_points(latches(), n_initial=128)


def test_the_signs_decide_where_a_carry_ends(cube):
    result = basins(latches(), cube, n_initial=600)
    signs = np.sign(result.starts)
    assert (np.sign(result.attractors[result.labels]) == signs).all()
    assert result.agreement == 1
    np.testing.assert_allclose(result.shares.sum(), 1)
    counted = [(signs == np.sign(a)).all(1).mean() for a in result.attractors]
    np.testing.assert_allclose(result.shares, counted)
    assert result.steps.min() >= 0


def test_geometry_alone_is_wrong_where_the_saddle_is_not_in_the_middle():
    def step(x):
        return torch.tanh(2 * x + 0.15)

    found = fixed_points(from_function(step, 1, box=torch.ones(1, dtype=torch.float64)), n_initial=64)
    saddle = found.points[found.index == 1][0, 0]
    result = basins(from_function(step, 1), found, torch.linspace(-1, 1, 401)[:, None])
    ends = result.attractors[result.labels][:, 0]
    assert ((ends > 0) == (result.starts[:, 0] > saddle)).all()
    middle = result.attractors.mean()
    between = np.abs(result.starts[:, 0] - (saddle + middle) / 2) < abs(middle - saddle) / 2
    np.testing.assert_allclose(result.agreement, 1 - between.mean(), atol=0.01)
    first = np.abs(result.starts[:, 0] - result.attractors[result.labels][:, 0]) <= 1e-4
    assert (result.steps[first] == 0).all()


def test_what_ends_nowhere_is_told_apart():
    def step(x):
        c, s = math.cos(1.0), math.sin(1.0)
        turned = torch.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], 1)
        flip = torch.stack([-x[:, 0], x[:, 1]], 1)
        away = 10 * x
        return torch.where(x[:, :1] > 5, away, torch.where(x[:, 1:].abs() > 2, flip, turned))

    start = torch.tensor([[6.0, 0.0], [1.0, 3.0], [0.5, 0.5]], dtype=torch.float64)
    rolled = roll_out(from_function(step, 2), start, torch.zeros(0, 2, dtype=torch.float64), steps=400)
    assert rolled.label.tolist() == [ESCAPED, PERIODIC, ELSEWHERE]


def test_each_saddle_of_an_edge_joins_its_two_corners(cube):
    result = unstable_manifolds(latches(), cube)
    assert len(result.saddles) == 12
    for s, x in enumerate(result.saddles):
        free = np.abs(x).argmin()
        corners = {tuple(np.sign(result.attractors[e])) for e in result.ends[result.of == s]}
        expected = [np.where(np.arange(3) == free, side, np.sign(x)) for side in (1, -1)]
        assert corners == {tuple(e) for e in expected}
    assert result.agreement == 1
    np.testing.assert_allclose(result.eigenvalues, 2, atol=1e-9)
    # The branch is the axis itself.
    other = np.delete(result.paths[0], np.abs(result.saddles[result.of[0]]).argmin(), axis=1)
    assert np.ptp(other, axis=0).max() < 1e-9
    more = unstable_manifolds(latches(), cube, highest=3)
    assert np.bincount(more.indices).tolist() == [0, 12, 6, 1]
    assert len(more.of) == 2 * (12 + 2 * 6 + 3)


def test_a_negative_direction_stays_on_its_side():
    # The origin is a saddle with the eigenvalue -2; twice the map has two stable points on that axis.
    def step(x):
        return torch.stack([-torch.tanh(2 * x[:, 0]), 0.5 * x[:, 1]], 1)

    found = fixed_points(from_function(step, 2), torch.zeros(1, 2), rounds=0)
    result = unstable_manifolds(from_function(step, 2), found, steps=40)
    for side, path in zip(result.sides, result.paths, strict=True):
        assert len({np.sign(v) for v in path[:, 0]}) == 1, side
        np.testing.assert_allclose(abs(path[-1, 0]), ROOT, atol=1e-9)
    assert result.ends.tolist() == [PERIODIC, PERIODIC]


# Loading leaves a file to the garbage collector, which says so.
def test_the_bundled_flip_flops_saddles_part_memories_that_differ_in_one_bit():
    model = strobe.load("flipflop-elman16")
    found = fixed_points(model, n_initial=128, control=None)
    result = unstable_manifolds(model, found)
    bits = torch.sign(model.unembed(torch.from_numpy(found.points).float())).detach().numpy()
    assert len(result.joined()) == 12
    for ends in result.joined().values():
        first, second = ends
        assert (bits[first] != bits[second]).sum() == 1


def ring(x):
    r = x.norm(dim=-1, keepdim=True)
    return x * (1 + 0.1 * (1 - r**2))


def test_a_ring_is_followed_all_the_way_round():
    system = from_function(ring, 2)
    found = fixed_points(system, torch.tensor([[0.9, 0.5], [0.01, 0.02]]), rounds=0)
    result = continua(system, found)
    assert result.shapes == ["ring"]
    np.testing.assert_allclose(np.linalg.norm(result.points, axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(result.lengths, 2 * math.pi, rtol=1e-3)
    assert result.drifts[0] < 1e-12
    assert result.beside[0] > 1e-3


def test_a_line_ends_where_it_moves_too_fast():
    # x stands still for |x| < 1 and is pulled back beyond; y decays.
    def step(x):
        return torch.stack([x[:, 0] - (x[:, 0].abs() - 1).clamp_min(0) * x[:, 0].sign(), 0.5 * x[:, 1]], 1)

    system = from_function(step, 2)
    found = fixed_points(system, torch.tensor([[0.2, 0.3]]), rounds=0)
    result = continua(system, found, step=0.02, drift_below=1e-3)
    assert result.shapes == ["line"]
    ends = np.sort(result.points[[0, -1], 0])
    np.testing.assert_allclose(ends, [-1, 1], atol=0.021)
    np.testing.assert_allclose(result.points[:, 1], 0, atol=1e-12)


@pytest.mark.parametrize(("units", "discrete"), [(8, 16), (32, 0)])
def test_a_cosine_ring_is_points_with_few_units_and_a_ring_with_many(units, discrete):
    angle = 2 * math.pi * torch.arange(units, dtype=torch.float64) / units
    W = 3 / units * torch.cos(angle[:, None] - angle[None])
    system = elman(W, torch.zeros(units, dtype=torch.float64), name="ring")
    found = fixed_points(system, n_initial=200, rounds=2, control=None)
    result = continua(system, found)
    if discrete:
        assert len(found.points) == discrete + 1
        assert not result.shapes
    else:
        assert result.shapes == ["ring"]
        assert found.n_marginal > 20
        assert result.drifts[0] < 1e-6


def test_a_saddle_node_and_the_identity_are_no_lines():
    fold = from_function(lambda x: x + x**2, 1)
    found = fixed_points(fold, torch.zeros(1, 1), rounds=0)
    assert continua(fold, found, drift_below=1e-4).shapes == ["point"]
    still = from_function(lambda x: x.clone(), 3)
    every = fixed_points(still, torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), rounds=0)
    result = continua(still, every)
    assert result.shapes == ["surface"]
    assert result.dimensions.tolist() == [3]


def test_points_of_another_system_are_refused(cube):
    with pytest.raises(ValueError, match="the points are of latches"):
        basins(from_function(torch.tanh, 3), cube)
    with pytest.raises(ValueError, match="1 or more of each"):
        unstable_manifolds(latches(), cube, highest=0)


def test_results_survive_their_files_and_draw(tmp_path, cube):
    system = latches()
    disc = from_function(ring, 2)
    found = fixed_points(disc, torch.tensor([[0.9, 0.5]]), rounds=0)
    for kind, result in (
        (Basins, basins(system, cube, n_initial=64)),
        (UnstableManifolds, unstable_manifolds(system, cube)),
        (Continua, continua(disc, found)),
    ):
        assert kind.load(result.save(tmp_path / "r.safetensors")) == result
        assert result.provenance.control in result.provenance.summary()
        assert len(result.to_frame())
        for dimensions in (2, 3):
            figure = result.figure(dimensions=dimensions)
            assert figure.data
            assert figure.layout.title.subtitle.text
        assert result.summary()
