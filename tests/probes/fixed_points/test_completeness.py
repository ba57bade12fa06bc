"""Oracle: every subset of a small set of seeds, drawn and counted; determinants; eigenvalues of known timescales."""

from itertools import combinations

import numpy as np
import pytest
import torch

from strobe.probes.fixed_points import classify, completeness
from strobe.probes.fixed_points.spectra import signs


def test_the_curve_is_the_mean_over_all_subsets():
    hits = np.array([4, 2, 1, 0])
    ends = np.repeat(np.arange(4), hits)
    draws, found = completeness.discovery_curve(hits)
    assert draws.tolist() == [1, 2, 3, 4, 5, 6, 7]
    expected = [np.mean([len(set(s)) for s in combinations(ends.tolist(), int(m))]) for m in draws]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_singletons_and_what_the_checks_say():
    assert completeness.singleton_mass(np.array([4, 2, 1, 1, 0])) == 2 / 8
    assert np.isnan(completeness.singleton_mass(np.zeros(3, dtype=np.int64)))
    assert completeness.index_sum(np.array([1, -1, -1, 1, 1])) == 1
    assert completeness.verdict(3, 0.0, 0, 0).startswith("falsified: the index sum is 3")
    for said in (completeness.verdict(1, 0.1, 0, 2), completeness.verdict(None, np.nan, 0, 0)):
        assert said.startswith("not falsified")
        assert "complete" not in said
    assert "2 initial carries did not end" in completeness.verdict(1, 0.1, 0, 2)
    assert "5 marginal" in completeness.verdict(None, 0.1, 5, 0)


@pytest.mark.parametrize(
    ("eigenvalues", "kind", "index"),
    [
        ([0.5, 0.2], "stable node", 0),
        ([-0.5, 0.2], "stable node", 0),
        ([0.4 + 0.3j, 0.4 - 0.3j], "stable focus", 0),
        ([1.5, 0.2], "saddle of index 1", 1),
        ([1.5, -1.2], "repeller", 2),
        ([1.0, 0.2], "marginal", 0),
        ([1j, -1j], "marginal", 0),
    ],
)
def test_kinds(eigenvalues, kind, index):
    spectrum = np.array([eigenvalues], dtype=np.complex128)
    assert classify.kinds(spectrum) == [kind]
    assert classify.saddle_index(spectrum).tolist() == [index]


def test_signs_are_those_of_the_determinants():
    J = 1.5 * torch.randn(60, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = signs(torch.linalg.eigvals(J))
    assert torch.equal(found, torch.linalg.slogdet(torch.eye(5, dtype=torch.float64) - J)[0].long())
    assert {1, -1} == set(found.tolist())
    undecided = torch.tensor([[1.0, 0.5], [float("nan")] * 2], dtype=torch.complex128)
    assert signs(undecided).tolist() == [0, 0]


def test_timescales_and_periods():
    values = np.array([np.exp(-1 / 7), 0.0, 1.0, np.exp(0.5), 0.9 * np.exp(0.25j * np.pi), -0.5], dtype=np.complex128)
    tau = classify.timescales(values)
    np.testing.assert_allclose(tau[[0, 1, 3]], [7, 0, -2], rtol=1e-12)
    assert tau[2] == np.inf
    np.testing.assert_allclose(classify.periods(values)[4:], [8, 2], rtol=1e-12)
    assert classify.periods(values)[0] == np.inf
