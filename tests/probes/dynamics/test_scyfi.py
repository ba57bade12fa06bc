"""Oracle: exhaustive enumeration of all activation patterns (a theorem for orders 1 and 2), closed forms, and the cycle
counts that the authors of SCYFI publish as tests for given parameters.
"""

from itertools import product

import numpy as np
import pytest

from strobe.core.result import load_result
from strobe.probes.dynamics import scyfi
from strobe.probes.dynamics.piecewise_linear import (
    PiecewiseLinear,
    almost_linear_rnn,
    plrnn,
    relu_rnn,
    shallow_plrnn,
)
from strobe.probes.dynamics.scyfi import piecewise_linear_cycles


def enumerated(map: PiecewiseLinear, order: int) -> list[np.ndarray]:
    """Every point of period `order`, by solving under every sequence of patterns."""
    points = []
    every = [np.array(p) for p in product([False, True], repeat=map.units)]
    for sequence in product(every, repeat=order):
        F, c = np.eye(map.size), np.zeros(map.size)
        for pattern in sequence:
            F_t, c_t = map.affine(pattern)
            F, c = F_t @ F, F_t @ c + c_t
        z = np.linalg.solve(np.eye(map.size) - F, c)
        x, right = z, True
        for pattern in sequence:
            right &= bool((map.pattern(x) == pattern).all())
            x = map.step(x)
        if right:
            points.append(z)
    return points


@pytest.mark.parametrize("seed", range(6))
def test_all_fixed_points_and_2_cycles_of_small_networks_are_found(seed):
    rng = np.random.default_rng(seed)
    map = plrnn(rng.uniform(-0.9, 0.9, 4), rng.normal(size=(4, 4)), rng.normal(size=4))
    found = piecewise_linear_cycles(map, 2, control=False)
    once, twice = enumerated(map, 1), enumerated(map, 2)
    assert found.counts().get(1, 0) == len(once)
    assert found.counts().get(2, 0) == (len(twice) - len(once)) / 2
    for orbit in found.orbits:
        np.testing.assert_allclose(map.step(orbit), np.roll(orbit, -1, axis=0), atol=1e-9)


def test_shallow_plrnn_parameters_of_the_authors():
    A = np.array([0.6172450705591427, 0.5261273846061184])
    # fmt: off
    W1 = np.array([
        [-1.022331291385995, -0.6068651009735164, 0.005478115970447768, -0.6765758765817282, 0.17667276783032312,
         -0.37241595029711383, -0.2799681077442852, 1.6336122869854053, 0.7388068389577566, 0.43655916960874785],
        [-0.23031703096807454, -0.155167269588236, 1.1743020054655264, 1.4693401983283279, -1.141192841208352,
         0.11938698490497139, 0.6192500266755361, 0.03950302999313116, -0.9179498107708933, -0.1216362805456489],
    ])
    # fmt: on
    W2 = np.array(
        [
            [1.753949852408234, -0.692574927107241],
            [-0.45303568496148183, -0.5365936668032565],
            [0.07984706960954363, -0.48651643130319855],
            [-1.0455124065967838, -0.22986736948781128],
            [0.048362883726876985, 0.8959123953895494],
            [-1.0545422354241465, 0.5685368747406444],
            [-0.43826625604171476, -2.1955495493951815],
            [-0.8981129185384389, -0.6454540072455006],
            [0.6162103523913983, -0.8644618121879155],
            [-1.2236281701654421, -2.059927291272103],
        ]
    )
    h1 = np.array([-0.5480895548836227, -0.2922735885352696])
    # fmt: off
    h2 = np.array([
        0.5352937111114038, -1.110030373073419, -1.3146036515301616, 0.2748467715335772, -1.4155203620983157,
        0.7891282169615852, -0.13084812694281087, -0.40652418385647066, -0.9383323642698853, -0.9983356016811977,
    ])
    # fmt: on
    found = piecewise_linear_cycles(shallow_plrnn(A, W1, W2, h1, h2, clipped=False), 4, control=False)
    assert found.counts() == {2: 2, 4: 1}
    two = np.concatenate([o for o in found.orbits if len(o) == 2])
    for expected in ([-2.898, -0.434], [-8.766, -24.078]):
        assert np.abs(two - expected).max(1).min() < 2e-3


@pytest.mark.parametrize(
    ("a1", "w1", "w2", "h2", "order"),
    [
        (0.8377689000000008, -0.6437499999999996, 0.52505308, -0.97931491, 16),
        (0.9777689, -0.14375, 0.52505308, -0.97931491, 27),
        (0.9777689, -0.14375, 1.1750530800000014, -0.97931491, 31),
        (0.9777689, -0.6437499999999996, 0.52505308, -0.97931491, 40),
        (0.9377689000000009, -0.6437499999999996, 0.52505308, -0.97931491, 53),
        (0.9777689, -0.14375, 1.3250530800000015, -0.97931491, 65),
        (0.9777689, -0.14375, 0.52505308, -0.779314909999999, 80),
        (0.9777689, -0.14375, 0.675053080000001, -0.97931491, 83),
    ],
)
def test_long_cycles_of_the_authors_two_dimensional_plrnn(a1, w1, w2, h2, order):
    map = plrnn(np.array([a1, 0.96461297]), np.array([[0, w1], [w2, 0]]), np.array([0.37298253000000087, h2]))
    rng, orbits, hits = np.random.default_rng(0), [], []
    for _ in range(6):
        for orbit in scyfi._search(map, scyfi._guesses(map, order, 64, 10.0, rng), 60).orbits:
            scyfi._count(orbit, orbits, hits)
    assert sum(len(o) == order for o in orbits) == 2


def test_a_point_that_hardly_moves_is_no_fixed_point():
    # x' - x is 5e-8 at the least: 5e-8 - .1 x below 0, 5e-8 + .05 x above. The lower branch's own fixed point lies
    # above 0, where the map moves it by less than rounding is allowed.
    ghost = PiecewiseLinear(np.array([[0.9]]), np.array([[0.15]]), np.array([[1.0]]), np.array([5e-8]), np.zeros(1))
    assert abs(float(ghost.step(np.array([5e-7]))[0]) - 5e-7) < scyfi._CLOSED
    assert piecewise_linear_cycles(ghost, 1, control=False).counts() == {}


def test_the_fixed_point_far_out_is_found_to_two_published_decimals():
    h = np.array([0.37298253000000087, -0.97931491])
    map = plrnn(np.array([-0.0222311, 0.96461297]), np.array([[0, -0.64375], [0.52505308, 0]]), h)
    found = piecewise_linear_cycles(map, 1, control=False)
    assert found.counts() == {1: 1}
    np.testing.assert_allclose(found.orbits[0][0], [0.36, -22.26], atol=5e-3)


def test_clipped_and_almost_linear_networks_are_the_equations_they_stand_for():
    rng = np.random.default_rng(0)
    A, W1, W2, h1, h2 = (rng.normal(size=s) for s in ((3,), (3, 5), (5, 3), (3,), (5,)))
    z = rng.normal(size=(7, 3))
    clipped = shallow_plrnn(A, W1, W2, h1, h2, clipped=True)
    expected = A * z + (np.maximum(z @ W2.T + h2, 0) - np.maximum(z @ W2.T, 0)) @ W1.T + h1
    np.testing.assert_allclose(clipped.step(z), expected, atol=1e-12)
    W, h = rng.normal(size=(3, 3)), rng.normal(size=3)
    phi = np.concatenate([z[:, :2], np.maximum(z[:, 2:], 0)], axis=1)
    np.testing.assert_allclose(almost_linear_rnn(A, W, h, 1).step(z), A * z + phi @ W.T + h, atol=1e-12)
    R = rng.normal(size=(3, 3))
    np.testing.assert_allclose(relu_rnn(R, h).step(z), np.maximum(z @ R.T + h, 0), atol=1e-12)
    J = clipped.system().jacobian(__import__("torch").from_numpy(z)).numpy()
    np.testing.assert_allclose(J, clipped.affine(clipped.pattern(z))[0], atol=1e-12)


def test_the_multiplier_of_a_cycle_is_the_product_of_its_slopes():
    # The tent map x -> 2 x for x < 1/2, 2 - 2 x beyond: cycles of order n have the multiplier +-2^n.
    tent = PiecewiseLinear(np.array([[2.0]]), np.array([[-4.0]]), np.array([[1.0]]), np.zeros(1), np.array([-0.5]))
    found = piecewise_linear_cycles(tent, 5, reach=1, control=False)
    # Necklaces: 2^n points of period n, less those of its divisors, by n.
    assert found.counts() == {1: 2, 2: 1, 3: 2, 4: 3, 5: 6}
    for orbit, multipliers in zip(found.orbits, found.multipliers, strict=True):
        assert abs(multipliers[0]) == pytest.approx(2.0 ** len(orbit))


def test_a_continuum_of_fixed_points_is_counted_as_singular_and_not_hidden():
    identity = plrnn(np.ones(2), np.zeros((2, 2)), np.zeros(2))
    found = piecewise_linear_cycles(identity, 1, control=False)
    assert not found.orbits
    assert found.singular > 0


def test_a_result_has_its_control_and_comes_back_from_its_file(tmp_path):
    rng = np.random.default_rng(1)
    map = plrnn(rng.uniform(-0.9, 0.9, 4), rng.normal(size=(4, 4)), rng.normal(size=4))
    found = piecewise_linear_cycles(map, 2)
    assert found.control is not None
    assert found.control.map.endswith("W1 shuffled")
    assert load_result(found.save(tmp_path / "cycles.safetensors")) == found
    assert len(found.figure().data) == len(found.orbits) == len(found.to_frame())


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="W1 of shape"):
        PiecewiseLinear(np.eye(2), np.ones((3, 2)), np.ones((2, 2)), np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="not finite"):
        plrnn(np.array([np.nan, 1.0]), np.eye(2), np.ones(2))
    with pytest.raises(ValueError, match="order 0"):
        piecewise_linear_cycles(plrnn(np.ones(2), np.eye(2), np.ones(2)), 0)
