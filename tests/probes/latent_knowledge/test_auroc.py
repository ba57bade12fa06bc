"""Oracle: scikit-learn's `roc_auc_score`, with sample weights and ties, one score at a time."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from strobe.probes.latent_knowledge.auroc import auroc, bootstrap_interval, weighted_auroc


@pytest.fixture(scope="module")
def data():
    draw = np.random.default_rng(0)
    truth = draw.random((2, 41)) < 0.4
    # Rounded, so that there are ties between the kinds and within them.
    scores = np.round(draw.standard_normal((3, 5, 2, 41)) + truth, 1)
    return scores, truth


def test_it_is_that_of_scikit_learn(data):
    scores, truth = data
    found = auroc(scores, truth)
    assert found.shape == (3, 5, 2)
    for at in np.ndindex(3, 5, 2):
        assert found[at] == pytest.approx(roc_auc_score(truth[at[-1]], scores[at]), abs=1e-12)
    assert auroc(-scores, truth) == pytest.approx(1 - found, abs=1e-12)


def test_items_counted_more_often_weigh_more(data):
    scores, truth = data
    counts = np.random.default_rng(1).multinomial(41, np.full(41, 1 / 41), 7).astype(float)
    found = weighted_auroc(scores, truth, counts)
    assert found.shape == (7, 3, 5, 2)
    for at in np.ndindex(7, 3, 5, 2):
        expected = roc_auc_score(truth[at[-1]], scores[at[1:]], sample_weight=counts[at[0]])
        assert found[at] == pytest.approx(expected, abs=1e-12)


def test_the_interval_covers_what_it_should():
    """Of the AUROC of two unit Gaussians one apart, Phi(1/sqrt 2) = .7602, in 95 % of samples."""
    draw, hits = np.random.default_rng(2), 0
    for i in range(100):
        truth = np.arange(80)[None] % 2 == 0
        low, high = bootstrap_interval(draw.standard_normal((1, 80)) + truth, truth, 200, seed=i)
        hits += bool(low[0] <= 0.76025 <= high[0])
    assert 86 <= hits <= 100


def test_one_kind_alone_has_no_auroc():
    truth = np.array([[True, True, False]])
    assert np.isnan(weighted_auroc(np.array([[1.0, 2.0, 0.0]]), truth, np.array([[1.0, 1.0, 0.0]]))).all()
