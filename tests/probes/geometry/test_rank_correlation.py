"""Oracle: SciPy's spearmanr on tables that are resampled by writing their rows out, and planted partial dependence."""

import numpy as np
import pytest
from scipy import stats

from strobe.probes.geometry.rank_correlation import _pearson, _ranks, spearman


def table(seed=0, n=60):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n).round(1)
    return a, (a + rng.normal(size=n)).round(1), np.arange(n) // 6


def test_it_is_scipys_with_ties_and_with_repeated_rows():
    a, b, cluster = table()
    assert spearman(a, b, cluster).value == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    times = np.random.default_rng(1).integers(0, 4, size=a.size)
    got = _pearson(
        _ranks(a, times[None].astype(float)), _ranks(b, times[None].astype(float)), times[None].astype(float)
    )
    expected = stats.spearmanr(np.repeat(a, times), np.repeat(b, times)).statistic
    assert got[0] == pytest.approx(expected, abs=1e-12)


def test_the_interval_is_that_of_resampled_sequences():
    rng = np.random.default_rng(5)
    cluster = np.repeat(np.arange(20), 10)
    # What varies is the sequence: resampling tokens would say far less than there is to doubt.
    a = rng.normal(size=20)[cluster] + 0.01 * rng.normal(size=200)
    b = rng.normal(size=20)[cluster] + 0.01 * rng.normal(size=200)
    value, low, high = spearman(a, b, cluster, n_bootstrap=400)
    assert low < value < high
    written_out = []
    for _ in range(400):
        rows = np.concatenate([np.flatnonzero(cluster == c) for c in rng.integers(0, 20, 20)])
        written_out.append(stats.spearmanr(a[rows], b[rows]).statistic)
    expected = np.quantile(written_out, [0.025, 0.975])
    assert [low, high] == pytest.approx(expected.tolist(), abs=0.12)
    assert high - low > 2 * 2 / np.sqrt(200)


def test_what_a_third_quantity_explains_is_taken_out():
    rng = np.random.default_rng(2)
    g = rng.normal(size=400)
    a, b = g + 0.3 * rng.normal(size=400), g + 0.3 * rng.normal(size=400)
    cluster = np.arange(400) // 8
    assert spearman(a, b, cluster).value > 0.85
    partial = spearman(a, b, cluster, given=g)
    assert abs(partial.value) < 0.15
    r = {name: stats.spearmanr(*pair).statistic for name, pair in {"ab": (a, b), "ag": (a, g), "bg": (b, g)}.items()}
    expected = (r["ab"] - r["ag"] * r["bg"]) / np.sqrt((1 - r["ag"] ** 2) * (1 - r["bg"] ** 2))
    assert partial.value == pytest.approx(expected, abs=1e-12)


def test_an_orthogonal_readout_ranks_errors_as_they_are():
    rng = np.random.default_rng(3)
    residual = rng.normal(size=(50, 8)) * rng.uniform(size=(50, 1))
    readout = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    error, effect = np.linalg.norm(residual, axis=1), np.linalg.norm(residual @ readout, axis=1)
    assert spearman(error, effect, np.arange(50)).value == pytest.approx(1.0)


def test_nothing_to_rank_is_nan():
    a, b, cluster = table()
    assert np.isnan(spearman(a, np.zeros(a.size), cluster)).all()
    assert np.isnan(spearman(np.full(a.size, np.nan), b, cluster)).all()
    holes = a.copy()
    holes[:7] = np.nan
    assert spearman(holes, b, cluster).value == pytest.approx(stats.spearmanr(a[7:], b[7:]).statistic)
    assert np.isnan(spearman(a, b, np.zeros(a.size, dtype=int)).low)
