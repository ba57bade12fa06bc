"""Oracle: closed forms: the AUROC of two Gaussians is Phi(gap / sqrt 2) along a direction, and planted directions.

CCS, CRC and VINC are tested both ways: they find a planted truth where the answers' means are taken out, the answer's
own direction where they are not, and nothing where nothing was planted. Further: scikit-learn in the full space for the
rotation into the span of the items, finite differences for CCS's gradient.
"""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from strobe.probes.latent_knowledge.auroc import auroc
from strobe.probes.latent_knowledge.directions import (
    PROBES,
    UNSUPERVISED,
    ccs_loss,
    fit_direction,
    pair_scores,
    scores,
)

D = 20


@pytest.fixture(scope="module")
def gaussians():
    """(x, labels, delta, Sigma): two classes with one covariance, their means `delta` apart."""
    draw = np.random.default_rng(0)
    mix = 0.8 * draw.standard_normal((D, D)) / np.sqrt(D) + np.eye(D)
    sigma = mix @ mix.T
    delta = draw.standard_normal(D)
    delta *= 2.0 / np.sqrt(delta @ np.linalg.solve(sigma, delta))
    labels = np.arange(20_000) % 2 == 0
    x = draw.standard_normal((20_000, D)) @ mix.T + np.outer(labels, delta)
    return x, labels, delta, sigma


def no_pairs(n, width):
    return np.zeros((n, 1, 2, width))


def auroc_of(w, x, labels):
    return float(auroc(scores(w, x)[None], labels[None])[0])


@pytest.mark.parametrize("name", ["lda", "lr", "mean"])
def test_supervised_probes_reach_the_closed_form(gaussians, name):
    x, labels, delta, sigma = gaussians
    half = np.arange(len(x)) < len(x) // 2
    w = fit_direction(name, x[half], no_pairs(half.sum(), D), labels[half])
    best = np.sqrt(delta @ np.linalg.solve(sigma, delta))
    along_means = delta @ delta / np.sqrt(delta @ sigma @ delta)
    expected = norm.cdf((along_means if name == "mean" else best) / np.sqrt(2))
    assert norm.cdf(best / np.sqrt(2)) - norm.cdf(along_means / np.sqrt(2)) > 0.03
    assert abs(auroc_of(w, x[~half], labels[~half]) - expected) < 0.01
    assert np.isclose(np.linalg.norm(w), 1)


def test_a_random_direction_has_the_closed_form_of_its_own_angle_and_the_better_sign(gaussians):
    x, labels, delta, sigma = gaussians
    found = []
    for seed in range(8):
        w = fit_direction("random", x, no_pairs(len(x), D), labels, seed=seed)
        assert abs(auroc_of(w, x, labels) - norm.cdf(w @ delta / np.sqrt(2 * (w @ sigma @ w)))) < 0.01
        found.append(auroc_of(w, x, labels))
    assert min(found) >= 0.5 and np.ptp(found) > 0.02


def planted(truth=1.5, answer=3.0, rephrased=0.0, n=600, width=30, sample=1):
    """Pairs base ± truth y t ± answer c + noise [n, 2 phrasings, 2, width]; `rephrased` times a random sign, each
    phrasing's own, along r. Returns (pairs, labels, t, c, r)."""
    t, c, r = np.linalg.qr(np.random.default_rng(1).standard_normal((width, 3)))[0].T
    draw = np.random.default_rng((1, sample))
    labels = draw.random(n) < 0.5
    y = np.where(labels, 1.0, -1.0)[:, None, None, None]
    side = np.array([1.0, -1.0])[None, None, :, None]
    sign = draw.choice([-1.0, 1.0], (n, 2, 1, 1))
    base = draw.standard_normal((n, 2, 1, width)) * 0.5
    noise = draw.standard_normal((n, 2, 2, width)) * 0.5
    return base + side * (truth * y * t + answer * c + rephrased * sign * r) + noise, labels, t, c, r


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_unsupervised_probes_find_the_truth_once_the_answer_is_taken_out(name):
    pairs, labels, t, _c, _r = planted()
    fresh, theirs, *_ = planted(sample=2)
    w = fit_direction(name, pairs[:, 0, 0], pairs, labels)
    assert w @ t > 0.95, "the sign is the labels'"
    assert auroc(pair_scores(w, fresh)[None], theirs[None])[0] > 0.99


@pytest.mark.parametrize("name", ["ccs", "crc"])
def test_without_that_they_find_which_answer_was_appended(name):
    pairs, labels, t, c, _r = planted()
    w = fit_direction(name, pairs[:, 0, 0], pairs, labels, normalise=False)
    assert abs(w @ c) > 0.9 and abs(w @ t) < 0.3


@pytest.mark.parametrize("name", UNSUPERVISED)
def test_they_find_nothing_where_there_is_nothing(name):
    pairs, labels, t, *_ = planted(truth=0.0)
    fresh, theirs, *_ = planted(truth=0.0, sample=2)
    w = fit_direction(name, pairs[:, 0, 0], pairs, labels)
    assert abs(w @ t) < 0.8
    assert abs(auroc(pair_scores(w, fresh)[None], theirs[None])[0] - 0.5) < 0.1


def test_only_vinc_leaves_out_what_changes_with_the_phrasing():
    pairs, labels, t, _c, r = planted(rephrased=3.0)
    crc, vinc = (fit_direction(n, pairs[:, 0, 0], pairs, labels) for n in ("crc", "vinc"))
    assert abs(crc @ r) > 0.95
    assert abs(vinc @ t) > 0.95 and abs(vinc @ r) < 0.2


@pytest.mark.parametrize("name", ["lr", "mean", "crc", "vinc"])
def test_more_width_than_items_is_fitted_as_in_the_full_space(name):
    pairs, labels, *_ = planted(n=60, width=200)
    last = pairs[:, 0, 0]
    w = fit_direction(name, last, pairs, labels)
    x = pairs - pairs.mean((0, 1), keepdims=True)
    if name == "lr":
        full = LogisticRegression(C=1 / (2e-3 * len(last)), max_iter=10_000, tol=1e-8).fit(last, labels).coef_[0]
    elif name == "mean":
        full = last[labels].mean(0) - last[~labels].mean(0)
    elif name == "crc":
        full = np.linalg.eigh(np.cov((x[:, :, 0] - x[:, :, 1]).reshape(-1, 200).T))[1][:, -1]
    else:
        around = (x - x.mean(1, keepdims=True)).reshape(-1, 200)
        yes, no = x.mean(1)[:, 0], x.mean(1)[:, 1]
        full = np.linalg.eigh(-around.T @ around / len(around) - (yes.T @ no + no.T @ yes) / 2 / len(x))[1][:, -1]
    assert abs(w @ full) / np.linalg.norm(full) > 1 - 1e-5


def test_the_gradient_of_ccs_is_that_of_its_loss():
    draw = np.random.default_rng(3)
    yes, no, w = draw.standard_normal((9, 5)), draw.standard_normal((9, 5)), draw.standard_normal(6)
    assert check_grad(lambda v: ccs_loss(v, yes, no)[0], lambda v: ccs_loss(v, yes, no)[1], w) < 1e-6
    # By hand: p = q = 1/2 is inconsistent by nothing and undecided by (1/2)^2.
    assert ccs_loss(np.zeros(6), yes, no)[0] == pytest.approx(0.25)


@pytest.mark.parametrize("name", PROBES)
def test_activations_that_never_differ_give_no_direction(name):
    labels = np.arange(30) % 2 == 0
    w = fit_direction(name, np.ones((30, 4)), np.ones((30, 1, 2, 4)), labels)
    assert auroc(np.stack([scores(w, np.ones((30, 4)))]), labels[None])[0] == 0.5


def test_an_unknown_probe_is_named():
    with pytest.raises(ValueError, match="'svm' does not exist; there are lr, mean"):
        fit_direction("svm", np.ones((2, 1)), np.ones((2, 1, 2, 1)), np.array([True, False]))
