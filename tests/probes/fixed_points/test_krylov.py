"""Oracle: a tanh network with planted fixed points, numpy's dense eigenvalues, and the dense finder's own answers.

W maps each planted x to atanh(x) (least squares, exact for fewer points than units), so that x = tanh(W x).
"""

import numpy as np
import pytest
import torch

from strobe.core.errors import CaptureTooLarge
from strobe.probes.fixed_points import FixedPoints, Limits, fixed_points, from_function
from strobe.probes.fixed_points.spectra import eigenvalues


def planted(size, count, gain=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = 0.9 * (2 * torch.rand(count, size, generator=generator, dtype=torch.float64) - 1)
    inverse = torch.linalg.pinv(X)
    W = (inverse @ torch.atanh(X)).T
    # What acts on none of the planted points: it changes their spectra and leaves them where they are.
    other = gain * torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    u = torch.randn(size, generator=generator, dtype=torch.float64)
    other = other + 5 * gain * torch.outer(u, u) / u.square().sum()
    W = W + other - other @ (inverse @ X)
    box = torch.ones(size, dtype=torch.float64)
    return X, W, from_function(lambda x: torch.tanh(x @ W.T), size, box=box, name="planted")


def test_planted_points_are_found_and_the_index_sum_says_that_others_are_missing():
    X, _, system = planted(64, 20)
    start = X + 0.003 * torch.randn(X.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = fixed_points(system, start, rounds=0)
    gap = np.linalg.norm(result.points[:, None] - X.numpy()[None], axis=-1).min(0)
    assert gap.max() < 1e-8
    assert result.index_sum != 1
    assert result.verdict.startswith("falsified")


def test_a_carry_too_large_to_factorise_is_solved_by_products():
    X, W, system = planted(600, 12, gain=0.5)
    start = X[:3] + 0.003 * torch.randn(3, 600, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    result = fixed_points(system, start, rounds=0, control=None, limits=Limits(max_iterations=20))
    assert result.ends["fixed"] == 3
    gap = np.linalg.norm(result.points[:, None] - X.numpy()[None, :3], axis=-1).min(0)
    assert gap.max() < 1e-8
    assert result.speeds.max() < 1e-11
    assert 16 <= result.eigenvalues.shape[1] < 600
    for x, found, index, sign in zip(result.points, result.eigenvalues, result.index, result.signs, strict=True):
        J = (1 - np.tanh(W.numpy() @ x) ** 2)[:, None] * W.numpy()
        every = np.linalg.eigvals(J)
        found = found[~np.isnan(found)]
        np.testing.assert_allclose(np.abs(found), np.sort(np.abs(every))[::-1][: len(found)], rtol=1e-6, atol=1e-12)
        assert index == (np.abs(every) > 1).sum()
        assert sign == np.sign(np.linalg.det(np.eye(600) - J))
    assert result.index.max() >= 1


@pytest.mark.parametrize("gain", [0.5, 1.3])
def test_without_jacobians_the_answers_are_the_same(gain):
    generator = torch.Generator().manual_seed(2)
    W = gain * torch.randn(12, 12, generator=generator, dtype=torch.float64) / 12**0.5
    system = from_function(lambda x: torch.tanh(x @ W.T), 12, box=torch.ones(12, dtype=torch.float64))
    start = torch.rand(12, 12, generator=generator, dtype=torch.float64) - 0.5
    dense = fixed_points(system, start, rounds=1, control=None)
    products = fixed_points(system, start, rounds=1, control=None, limits=Limits(dense_up_to=0))
    assert products.speeds.max() < 1e-11
    gap = np.linalg.norm(dense.points[:, None] - products.points[None], axis=-1)
    assert max(gap.min(0).max(), gap.min(1).max()) < 1e-8


def test_a_ghost_is_slow_without_jacobians_too():
    system = from_function(lambda x: x + x**2 + 1e-3, 1)
    result = fixed_points(system, torch.linspace(-1, 1, 5)[:, None], limits=Limits(dense_up_to=0))
    assert result.ends["slow"] == 5
    np.testing.assert_allclose(result.slow_speeds, 1e-3, rtol=1e-3)


def test_a_spectrum_that_is_not_decided_says_so(tmp_path):
    # 129 growing directions: more than are ever asked for, so that the index cannot be told.
    scale = torch.cat([torch.linspace(2, 3, 150), torch.linspace(0, 0.5, 450)]).double()
    system = from_function(lambda x: x * scale, 600)
    result = fixed_points(system, torch.zeros(1, 600), rounds=0)
    assert result.kinds == ["undecided"]
    assert not result.stable[0]
    again = FixedPoints.load(result.save(tmp_path / "points.safetensors"))
    assert again == result
    assert again.to_frame()["kind"].tolist() == ["undecided"]
    zero = from_function(lambda x: torch.zeros_like(x), 600)
    assert eigenvalues(zero, torch.zeros(1, 600, dtype=torch.float64)).abs().max() == 0


def test_what_does_not_fit_in_memory_is_said_before(monkeypatch):
    from strobe.core import memory

    system = from_function(torch.tanh, 600)
    monkeypatch.setattr(memory, "available_bytes", lambda device="cpu": 1_000_000)
    monkeypatch.setattr(memory, "_SMALL_BYTES", 0)
    with pytest.raises(CaptureTooLarge, match="dense_up_to"):
        fixed_points(system, torch.zeros(8, 600), limits=Limits(dense_up_to=600))
    assert fixed_points(system, torch.zeros(1, 600)).ends["fixed"] == 1
