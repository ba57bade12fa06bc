"""Oracle: maps whose fixed points are known in closed form.

tanh(2h) in three units (27 points, x* = .9575040240772687, slope there .16637208775), an affine map, a rotation, a
saddle-node ghost, a ring of fixed points, a GRU whose update gate is closed to rounding, and the Hénon map.
"""

import math

import numpy as np
import pytest
import torch

from strobe.probes.fixed_points import FixedPoints, Limits, System, fixed_points, from_function, search
from strobe.probes.fixed_points.cells import gru
from strobe.probes.fixed_points.merging import merge

ROOT, SLOPE = 0.9575040240772687, 0.16637208775


def latch(x):
    return torch.tanh(2 * x)


def box(n):
    return torch.ones(n, dtype=torch.float64)


@pytest.fixture(scope="module")
def cube() -> FixedPoints:
    return fixed_points(from_function(latch, 3, box=box(3)), n_initial=256)


def test_three_latches_have_27_points(cube):
    grid = np.array(np.meshgrid(*[[-ROOT, 0, ROOT]] * 3)).reshape(3, -1).T
    gap = np.abs(cube.points[:, None] - grid[None]).max(-1).min(0)
    assert len(cube.points) == 27
    assert gap.max() < 1e-10
    assert np.bincount(cube.index).tolist() == [8, 12, 6, 1]
    assert cube.kind_counts() == {"stable node": 8, "saddle of index 1": 12, "saddle of index 2": 6, "repeller": 1}
    np.testing.assert_allclose(cube.eigenvalues[:8], SLOPE, atol=1e-10)
    np.testing.assert_allclose(cube.timescales[:8], -1 / math.log(SLOPE), rtol=1e-9)
    assert cube.index_sum == 1
    assert cube.verdict.startswith("not falsified")
    assert cube.ends == {"fixed": 256, "slow": 0, "escaped": 0, "failed": 0}


def test_two_coupled_latches_have_9_points():
    """On the diagonals W = [[2, -.5], [-.5, 2]] is 1.5 and 2.5: a = tanh(1.5 a) and a = tanh(2.5 a)."""
    W = torch.tensor([[2, -0.5], [-0.5, 2]], dtype=torch.float64)
    result = fixed_points(from_function(lambda x: torch.tanh(x @ W), 2, box=box(2)), n_initial=128)
    assert np.bincount(result.index).tolist() == [4, 4, 1]
    for gain, sign, root in ((1.5, 1, 0.85856), (2.5, -1, 0.98562)):
        a = root
        for _ in range(200):
            a = math.tanh(gain * a)
        assert abs(a - root) < 1e-5
        for side in (1, -1):
            expected = side * np.array([a, sign * a])
            assert np.abs(result.points - expected).max(1).min() < 1e-10


def test_speeds_are_those_of_the_points_returned(cube):
    assert cube.speeds.max() < 1e-12
    # Carries so large that rounding alone moves them visibly.
    A = 0.3 * torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    far = fixed_points(from_function(lambda x: x @ A.T + 1e6 / 3, 6), n_initial=4)
    x = torch.from_numpy(far.points)
    speed = (x @ A.T + 1e6 / 3 - x).norm(dim=-1).numpy()
    assert speed[0] > 0
    np.testing.assert_array_equal(far.speeds, speed)


def test_few_initial_carries_and_closure_find_them_all():
    result = fixed_points(from_function(latch, 3, box=box(3)), torch.tensor([[0.9, 0.8, 0.9], [0.1, 0.0, 0.1]]))
    assert len(result.points) == 27
    assert result.hits.sum() == 2
    alone = fixed_points(from_function(latch, 3, box=box(3)), torch.tensor([[0.9, 0.8, 0.9], [-1.0, 1, 1]]), rounds=0)
    assert len(alone.points) == 2
    assert alone.index_sum == 2
    assert alone.verdict.startswith("falsified")


def test_what_lies_between_is_tried_before_random_carries(monkeypatch):
    def none(*asked):
        raise AssertionError("random carries, though those between the corners complete the cube")

    # The corners alone are known not to be all: the index sum is 8. Midpoints of them are the other 19.
    corners = torch.tensor(np.array(np.meshgrid(*[[-ROOT, ROOT]] * 3)).reshape(3, -1).T)
    monkeypatch.setattr(search, "random_carries", none)
    result = fixed_points(from_function(latch, 3, box=box(3)), corners, control=None)
    assert np.bincount(result.index).tolist() == [8, 12, 6, 1]


def test_an_affine_map_has_one_point_and_the_spectrum_of_its_matrix():
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(6, 6, generator=generator, dtype=torch.float64) * 0.3
    b = torch.randn(6, generator=generator, dtype=torch.float64)
    result = fixed_points(from_function(lambda x: x @ A.T + b, 6), n_initial=16)
    expected = torch.linalg.solve(torch.eye(6, dtype=torch.float64) - A, b)
    assert len(result.points) == 1
    np.testing.assert_allclose(result.points[0], expected.numpy(), atol=1e-10)
    np.testing.assert_allclose(
        np.sort_complex(result.eigenvalues[0]), np.sort_complex(np.linalg.eigvals(A.numpy())), atol=1e-10
    )
    assert result.index_sum is None


def test_a_rotation_is_marginal_with_its_period():
    c, s = math.cos(0.3), math.sin(0.3)
    R = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    result = fixed_points(from_function(lambda x: x @ R.T, 2), n_initial=8)
    np.testing.assert_allclose(result.points, np.zeros((1, 2)), atol=1e-12)
    assert result.kinds == ["marginal"]
    np.testing.assert_allclose(result.to_frame()["period"][0], 2 * math.pi / 0.3, rtol=1e-9)


@pytest.mark.parametrize("eps", [1e-3, 1e-5])
def test_the_ghost_of_a_saddle_node_is_a_slow_point(eps):
    result = fixed_points(from_function(lambda x: x + x**2 + eps, 1), torch.linspace(-1, 1, 11)[:, None])
    assert len(result.points) == 0
    assert result.ends["slow"] == 11
    np.testing.assert_allclose(result.slow_speeds, eps, rtol=1e-3)
    np.testing.assert_allclose(result.slow_points, 0, atol=1e-3)


def test_a_ring_of_fixed_points_is_marginal_and_not_chained_into_one():
    def ring(x):
        r = x.norm(dim=-1, keepdim=True)
        return x * (1 + 0.1 * (1 - r**2))

    start = torch.randn(60, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    result = fixed_points(from_function(ring, 2), start, rounds=0)
    on_ring = np.abs(np.linalg.norm(result.points, axis=1) - 1) < 1e-8
    assert on_ring.sum() > 30
    assert set(np.array(result.kinds)[on_ring]) == {"marginal"}
    np.testing.assert_allclose(np.abs(result.eigenvalues[on_ring][:, 1]), 0.8, atol=1e-8)
    assert result.index_sum is None
    assert "marginal" in result.verdict


def test_a_closed_update_gate_leaves_no_ghosts():
    # z = sigmoid(40) is 1 in float64 but for 4e-18: every carry stands still, and only 27 are fixed points.
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
    R = torch.cat([zero, zero, 2 * eye])
    drive = torch.tensor([60.0] * 3 + [40.0] * 3 + [0.0] * 3, dtype=torch.float64)
    result = fixed_points(gru(R, drive, torch.zeros(9, dtype=torch.float64)), n_initial=128, control=None)
    assert len(result.points) == 27
    gap = np.abs(np.abs(result.points)[..., None] - np.array([0, ROOT])).min(-1)
    assert gap.max() < 1e-9


def test_henon_points_and_those_that_blow_up_are_counted():
    def henon(x):
        return torch.stack([1 - 1.4 * x[:, 0] ** 2 + x[:, 1], 0.3 * x[:, 0]], 1)

    result = fixed_points(from_function(henon, 2), n_initial=64)
    roots = np.sort(np.roots([1.4, 0.7, -1]))
    np.testing.assert_allclose(np.sort(result.points[:, 0]), roots, atol=1e-10)
    assert result.kinds == ["saddle of index 1", "saddle of index 1"]

    def away(x):
        return torch.where(x > 0, 0.5 * x, 3 * x - 1e3 / (x + 1e-3) ** 2)

    start = torch.tensor([[0.5], [1e307]], dtype=torch.float64)
    far = fixed_points(from_function(away, 1), start, rounds=0)
    assert far.ends["escaped"] == 1
    assert sum(far.ends.values()) == 2


def test_a_budget_too_small_says_so():
    result = fixed_points(from_function(latch, 3, box=box(3)), n_initial=64, rounds=0, limits=Limits(max_iterations=1))
    assert result.exhausted == result.ends["failed"] > 0
    assert "partial result" in result.summary()


def test_points_closer_than_rounding_are_one_and_others_are_not():
    known = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    new = torch.tensor([[1.0 + 1e-9, 0], [2, 0], [2, 1e-4], [2, 1e-9]], dtype=torch.float64)
    points, which = merge(known, new, 1e-6)
    assert which.tolist() == [0, 1, 2, 1]
    assert points.shape == (3, 2)


def test_the_callers_tensors_and_random_state_are_left_alone():
    start = torch.full((4, 3), 0.4, dtype=torch.float32, requires_grad=True)
    kept, state = start.detach().clone(), torch.get_rng_state()
    fixed_points(from_function(latch, 3), start)
    assert torch.equal(start.detach(), kept)
    assert start.requires_grad
    assert start.grad is None
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda x: x[:, :2], "same shape"),
        (lambda x: x.float(), "torch.float32"),
        (lambda x: x + torch.randn_like(x), "two different results"),
        (lambda x: x - x.mean(0), "mixes the rows"),
        (lambda x: x.mul_(2), "in place"),
    ],
)
def test_a_step_that_is_none_is_refused(step, said):
    with pytest.raises(ValueError, match=said):
        from_function(step, 3)


@pytest.mark.parametrize(
    ("initial", "said"),
    [(torch.zeros(0, 3), "n of 1 or more"), (torch.zeros(4, 2), "3 numbers"), (torch.full((2, 3), math.nan), "2 of 2")],
)
def test_initial_carries_that_do_not_fit_are_refused(initial, said):
    with pytest.raises(ValueError, match=said):
        fixed_points(from_function(latch, 3), initial)


def test_a_system_holds_its_input_itself():
    with pytest.raises(ValueError, match="already has its held input"):
        fixed_points(from_function(latch, 3), held=[1.0])
    assert isinstance(from_function(latch, 3), System)


def test_a_result_survives_its_file_and_draws(tmp_path, cube):
    again = FixedPoints.load(cube.save(tmp_path / "points.safetensors"))
    assert again == cube
    portrait, space = again.figure(), again.figure(dimensions=3)
    assert [t.name for t in portrait.data][1:] == [
        "stable node (8)",
        "saddle of index 1 (12)",
        "saddle of index 2 (6)",
        "repeller (1)",
    ]
    assert sum(len(t.x) for t in space.data[1:]) == 27
    assert portrait.layout.xaxis.title.text.startswith("PC 1")
    circle = again.eigenvalue_figure().data[0]
    np.testing.assert_allclose(np.hypot(circle.x, circle.y), 1)
    assert sum(len(t.x) for t in again.eigenvalue_figure(0).data[1:]) == 3
    assert again.completeness_figure().layout.title.subtitle.text == again.verdict
    assert len(again.to_frame()) == 27
    with pytest.raises(ValueError, match="points 0 to 26"):
        again.eigenvalue_figure(27)
    with pytest.raises(ValueError, match="give 2 or 3"):
        again.figure(dimensions=4)
