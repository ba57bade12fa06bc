"""Oracle: roots known in closed form or solved by Newton's method, and the count of Jacobians that were formed."""

import numpy as np
import torch

from strobe.probes.fixed_points import Limits, fixed_points, from_function
from strobe.probes.fixed_points.anchors import Anchors
from strobe.probes.fixed_points.candidates import between
from strobe.probes.fixed_points.cells import elman
from strobe.probes.fixed_points.finder import Outcome, solve
from strobe.probes.fixed_points.system import Roots

ROOT = 0.9575040240772687


def counted(roots):
    """`roots` that count how many rows were linearised."""
    rows = [0]

    def linearise(y):
        rows[0] += len(y)
        return roots.linearise(y)

    return Roots(residual=roots.residual, linearise=linearise), rows


def at(*values):
    return torch.tensor([[v] for v in values], dtype=torch.float64)


def latch():
    """The roots of tanh(2y), with the sign for which a step y + r leads away from those at +-`ROOT`."""

    def residual(y):
        return y - torch.tanh(2 * y)

    return Roots(residual=residual, linearise=lambda y: (residual(y), 1 - 2 / torch.cosh(2 * y).square()[:, :, None]))


def network(size=7):
    """A network that is not symmetric, so that a transposed inverse is another one."""
    generator = torch.Generator().manual_seed(1)
    R = 1.5 * torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    return elman(R, 0.5 * torch.randn(size, generator=generator, dtype=torch.float64))


def test_candidates_near_a_known_root_need_no_jacobian_of_their_own():
    roots, rows = counted(network().roots)
    start = torch.randn(20, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = solve(roots, start, Limits(), Anchors(7))
    root = found.y[found.outcome == Outcome.CONVERGED][:1]
    anchors = Anchors(7)
    anchors.add(roots, root)
    rows[0] = 0
    y, outcome, iterations = solve(roots, root + 0.05 * start, Limits(), anchors)
    assert rows[0] == 0
    assert outcome.tolist() == [Outcome.CONVERGED] * 20
    assert iterations.tolist() == [0] * 20
    torch.testing.assert_close(y, root.expand(20, 7), rtol=0, atol=1e-10)
    assert float(roots.residual(y).norm(dim=1).max()) <= 1e-12 * (1 + float(y.abs().max()))


def test_a_known_root_does_not_draw_in_what_belongs_to_another():
    roots, anchors = latch(), Anchors(1)
    anchors.add(roots, at(0.0))
    y, outcome, _ = solve(roots, at(0.9, 0.6, -0.9, 1e-3), Limits(), anchors)
    assert outcome.tolist() == [Outcome.CONVERGED] * 4
    np.testing.assert_allclose(y[:, 0], [ROOT, ROOT, -ROOT, 0], atol=1e-10)
    # What was found on the way is kept for the next search.
    assert sorted(anchors.y[:, 0].tolist()) == sorted(set(anchors.y[:, 0].tolist()))
    assert len(anchors) == 3


def test_roots_of_a_line_are_no_anchors():
    def ring(x):
        return x * (1 + 0.1 * (1 - x.norm(dim=-1, keepdim=True) ** 2))

    system, anchors = from_function(ring, 2), Anchors(2)
    anchors.add(system.roots, torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64))
    assert len(anchors) == 0


def test_steps_of_the_map_are_taken_only_where_they_descend():
    # Each step of the map takes the carry eight times as far from its fixed point, 1 / 9.
    system = from_function(lambda x: 1 - 8 * x, 1)
    result = fixed_points(system, at(1.0), limits=Limits(reach=1e4), rounds=0)
    assert result.ends == {"fixed": 1, "slow": 0, "escaped": 0, "failed": 0}
    np.testing.assert_allclose(result.points, [[1 / 9]], atol=1e-12)


def test_between_points_are_their_midpoints_and_fourth_corners():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    found = between(points, 60, seed=0)
    middle = {(1.0, 0.0), (0.0, 2.0), (1.0, 2.0)}
    assert {tuple(row) for row in found[:3].tolist()} == middle
    assert {tuple(row) for row in found[3:].tolist()} == {(2.0, 4.0), (2.0, -4.0), (-2.0, 4.0)}


def test_the_rest_of_a_cube_is_found_from_its_corners():
    # Without a box nothing says that points are missing: what finds them is the search between points alone.
    corners = ROOT * (2 * torch.cartesian_prod(*[torch.arange(2.0, dtype=torch.float64)] * 3) - 1)
    system = from_function(lambda x: torch.tanh(2 * x), 3)
    assert len(fixed_points(system, corners, rounds=0).points) == 8
    assert len(fixed_points(system, corners).points) == 27
