"""Oracle: closed forms: AR(1) under white input, matrices of known rank, order statistics of exchangeable draws."""

import numpy as np
import pytest
import torch

from strobe.kernels import scan
from strobe.kernels.diagonal import DIAGONAL, DiagonalSignals
from strobe.probes.memory import carry_statistics as cs


def test_the_norm_of_an_ar1_carry_is_its_closed_form():
    a, sigma, d, seeds, time = 0.9, 0.7, 256, 64, 41
    b = sigma * torch.randn(seeds, time, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    captured = scan(DIAGONAL, DiagonalSignals(torch.full_like(b, a), b), capture="all").captured.h
    moments = cs.by_head(captured)
    t = torch.arange(1, time + 1)
    expected = d * sigma**2 * (1 - a ** (2 * t)) / (1 - a**2)
    assert (moments.norm[:, 0].square() / expected - 1).abs().max() < 0.05
    assert (moments.variance[:, 0] * d / expected - 1).abs().max() < 0.05
    channels = cs.by_channel(captured)
    assert channels.norm.shape == (time, d)
    assert torch.equal(channels.largest.amax(1), moments.largest[:, 0])


def test_a_constant_input_into_a_carry_that_never_forgets_grows_by_as_much_every_token():
    b = torch.ones(1, 60, 3, dtype=torch.float64)
    for a, expected in ((1.0, torch.arange(1, 61.0)), (0.8, (1 - 0.8 ** torch.arange(1, 61)) / 0.2)):
        captured = scan(DIAGONAL, DiagonalSignals(torch.full_like(b, a), b), capture="all").captured.h
        assert (cs.by_head(captured).norm[:, 0] / (expected * 3**0.5) - 1).abs().max() < 1e-6


@pytest.mark.parametrize(("rank", "expected"), [(1, 1.0), (3, 3.0), (5, 5.0), (0, 0.0)])
@pytest.mark.parametrize("shape", [(5, 7), (7, 5)])
def test_the_effective_rank_of_equal_singular_values_is_their_number(rank, expected, shape):
    g = torch.Generator().manual_seed(1)
    u, v = (torch.linalg.qr(torch.randn(n, n, generator=g, dtype=torch.float64))[0] for n in shape)
    matrix = 3.7 * u[:, :rank] @ v[:, :rank].T
    found = cs.effective_rank(matrix.expand(2, 3, 4, *shape))
    assert found.shape == (3, 4)
    assert (found - expected).abs().max() < 1e-3
    full = cs.saturation("decay", matrix.expand(2, 3, 4, *shape), found)
    assert (full - expected / 5).abs().max() < 1e-3


def test_the_effective_rank_is_that_of_the_singular_values():
    memory = torch.randn(3, 2, 4, 6, 5, generator=torch.Generator().manual_seed(2))
    s = np.linalg.svd(memory.double().numpy(), compute_uv=False)
    p = s / s.sum(-1, keepdims=True)
    expected = np.exp(-(p * np.log(p)).sum(-1)).mean(0)
    np.testing.assert_allclose(cs.effective_rank(memory).numpy(), expected, rtol=1e-6)


def test_saturation_of_bounded_cells_counts_units_near_their_bound():
    h = torch.tensor([[[0.95, -0.99, 0.5, 0.0], [0.1, 0.2, 0.3, 0.92]]])
    assert cs.saturation("gru", h, None).tolist() == [[0.5], [0.25]]
    # An LSTM's memory c is read through tanh: 1.4 gives .885, 1.6 gives .92.
    assert cs.saturation("lstm", torch.tensor([[[1.4, -1.6]]]), None).tolist() == [[0.5]]
    assert cs.saturation("diagonal", h, None) is None


def test_an_unseen_draw_is_outside_the_range_of_n_as_often_as_theory_says():
    # Of n + 1 exchangeable draws the last is the smallest or the largest with probability 2 / (n + 1).
    g = torch.Generator().manual_seed(4)
    seen = cs.TrainingRange()
    seen.fit(torch.randn(16, 2, 40000, generator=g))
    inside, _ = seen.inside()
    assert inside.shape == (2,)
    assert (inside - 2 / 17).abs().max() < 0.003
    later = torch.randn(16, 3, 40000, generator=g)
    share, distance = seen.distance(later)
    assert (share - 2 / 17).abs().max() < 0.003
    far, z_far = seen.distance(later * 50)
    assert far.min() > 0.9
    assert (z_far / distance).min() > 40


def test_units_that_never_moved_have_no_z_score():
    memory = torch.zeros(4, 2, 3)
    memory[..., 0] = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    seen = cs.TrainingRange()
    seen.fit(memory)
    share, distance = seen.distance(memory + torch.tensor([0.0, 1.0, 0.0]))
    assert torch.isfinite(distance).all()
    # The one unit that moved although it never had is outside.
    assert (share >= 1 / 3).all()
