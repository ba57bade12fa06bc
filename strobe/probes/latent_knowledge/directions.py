"""The probes: each fits one direction to activations, so that truth is above falsehood along it.

Supervised, from activations [items, width] at the last token of a prompt, and labels:

``lr``      logistic regression with the penalty 1e-3 |w|^2 on the mean loss (scikit-learn)
``mean``    difference of the class means
``lda``     linear discriminant analysis, covariance shrunk after Ledoit and Wolf (scikit-learn)

Unsupervised, from contrast pairs [items, phrasings, 2, width]: the prompt answered "yes", and answered "no". Labels set
no more than their sign, where the originals fit Platt scaling:

``ccs``     contrast-consistent search: |p(yes) - (1 - p(no))|^2 + min(p(yes), p(no))^2 (Burns et al. 2022,
            arXiv 2212.03827), ten starts, the lowest loss
``crc``     the first principal component of x(yes) - x(no) (contrastive representation clustering, the same paper)
``vinc``    the top eigenvector of w_var B - (1 - w_neg) I - w_neg C, with B the covariance of the items' means, I that
            of the phrasings of one item and C the symmetric part of cov(x(yes), x(no)); w_var 0, w_neg 1/2 (Mallen et
            al. 2023, arXiv 2312.01037; EleutherAI/elk)

``random``  a Gaussian direction with the sign that labels give it: the control.

Before the unsupervised ones, each of the two answers' mean is taken out (Burns et al.), or they find which answer was
appended; the originals erase that with LEACE, which leaves as little of it to a linear probe. Ours also: CCS in units
in which activations have mean square one; and activations wider than there are items are rotated into the span of the
items first, in which lr, mean, crc, vinc and ccs lose nothing.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

Supervised = Literal["lr", "mean", "lda"]
Unsupervised = Literal["ccs", "crc", "vinc"]
Name = Literal["lr", "mean", "lda", "ccs", "crc", "vinc", "random"]
SUPERVISED: tuple[str, ...] = get_args(Supervised)
UNSUPERVISED: tuple[str, ...] = get_args(Unsupervised)
PROBES: tuple[str, ...] = (*SUPERVISED, *UNSUPERVISED)

_LR_PENALTY = 1e-3
_CCS_STARTS, _CCS_STEPS, _CCS_DECAY = 10, 1000, 0.01
_VINC_VARIANCE, _VINC_NEGATION = 0.0, 0.5


def fit_direction(
    name: str,
    last: Float[np.ndarray, "items width"],
    pairs: Float[np.ndarray, "items phrasings 2 width"],
    labels: Bool[np.ndarray, " items"],
    *,
    seed: int = 0,
    normalise: bool = True,
) -> Float[np.ndarray, " width"]:
    """The direction of the probe `name`, of unit norm (zeros where nothing differs, and for "lda" where
    no class varies).

    Supervised probes and "random" see `last`, unsupervised ones `pairs`. `normalise`: take the mean of each answer out
    of the pairs; without, CCS and CRC find which answer was appended. Raises ValueError for another name.
    """
    if name not in get_args(Name):
        raise ValueError(f"probe {name!r} does not exist; there are {', '.join(get_args(Name))}")
    draw = np.random.default_rng(seed)
    if name in UNSUPERVISED:
        x = np.asarray(pairs, dtype=np.float64)
        x = x - x.mean((0, 1), keepdims=True) if normalise else x
        basis = _span(x.reshape(-1, x.shape[-1]))
        x = x if basis is None else x @ basis
        w = {"ccs": _ccs, "crc": _crc, "vinc": _vinc}[name](x, draw)
    else:
        x = np.asarray(last, dtype=np.float64)
        basis = None if name == "random" else _span(x - x.mean(0))
        x = x if basis is None else x @ basis
        w = draw.standard_normal(x.shape[-1]) if name == "random" else _supervised(name, x, labels)
    w = w if basis is None else basis @ w
    size = np.linalg.norm(w)
    w = w / size if size > 0 else w
    if name in SUPERVISED:
        return w
    along = scores(w, last) if name == "random" else pair_scores(w, pairs)
    return w if _rank_sign(along, labels) >= 0 else -w


def scores(
    direction: Float[np.ndarray, " width"], last: Float[np.ndarray, "items width"]
) -> Float[np.ndarray, " items"]:
    """How true each prompt looks: its activation along `direction`."""
    return last.astype(np.float64) @ direction


def pair_scores(
    direction: Float[np.ndarray, " width"], pairs: Float[np.ndarray, "items phrasings 2 width"]
) -> Float[np.ndarray, " items"]:
    """How true each prompt looks: "yes" minus "no" along `direction`, in its own phrasing. Means that were taken out
    shift all items alike."""
    return (pairs[:, 0, 0].astype(np.float64) - pairs[:, 0, 1]) @ direction


def _span(x: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "width rank"] | None:
    """An orthonormal basis of the rows of `x` where they do not fill the space, else None."""
    if x.shape[1] <= x.shape[0]:
        return None
    _, size, rows = np.linalg.svd(x, full_matrices=False)
    keep = size > size[0] * max(x.shape) * np.finfo(np.float64).eps
    return rows[keep].T if keep.any() else None


def _supervised(
    name: str, x: Float[np.ndarray, "items width"], labels: Bool[np.ndarray, " items"]
) -> Float[np.ndarray, " width"]:
    if name == "mean" or not np.ptp(x, axis=0).any():
        return x[labels].mean(0) - x[~labels].mean(0)
    if name == "lr":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(C=1 / (2 * _LR_PENALTY * len(x)), max_iter=10_000, tol=1e-6).fit(x, labels).coef_[0]
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(x, labels).coef_[0]


def _crc(x: Float[np.ndarray, "items phrasings 2 width"], draw: np.random.Generator) -> Float[np.ndarray, " width"]:
    difference = x[:, :, 0] - x[:, :, 1]
    return np.linalg.svd(difference.reshape(-1, x.shape[-1]), full_matrices=False)[2][0]


def _vinc(x: Float[np.ndarray, "items phrasings 2 width"], draw: np.random.Generator) -> Float[np.ndarray, " width"]:
    n = len(x)
    middle = x.mean(1)
    around = (x - middle[:, None]).reshape(-1, x.shape[-1])
    intra = around.T @ around / len(around)
    centred = middle - middle.mean(0)
    inter = sum(centred[:, side].T @ centred[:, side] for side in (0, 1)) / (2 * n)
    contrast = centred[:, 0].T @ centred[:, 1] / n
    matrix = _VINC_VARIANCE * inter - (1 - _VINC_NEGATION) * intra - _VINC_NEGATION * (contrast + contrast.T) / 2
    return np.linalg.eigh(matrix)[1][:, -1]


def _ccs(x: Float[np.ndarray, "items phrasings 2 width"], draw: np.random.Generator) -> Float[np.ndarray, " width"]:
    from scipy.optimize import minimize

    scale = np.sqrt(np.mean(np.square(x)))
    if not scale > 0:
        return np.zeros(x.shape[-1])
    yes, no = (x[:, :, side].reshape(-1, x.shape[-1]) / scale for side in (0, 1))
    found = []
    for _ in range(_CCS_STARTS):
        start = np.append(draw.standard_normal(x.shape[-1]) / np.sqrt(x.shape[-1]), 0.0)
        found.append(minimize(ccs_loss, start, (yes, no), jac=True, method="L-BFGS-B", options={"maxiter": _CCS_STEPS}))
    return min(found, key=lambda f: f.fun).x[:-1]


def ccs_loss(
    weights: Float[np.ndarray, " width_1"], yes: Float[np.ndarray, "items width"], no: Float[np.ndarray, "items width"]
) -> tuple[float, Float[np.ndarray, " width_1"]]:
    """CCS's loss with its weight decay, and the gradient; the last of `weights` is the bias."""
    from scipy.special import expit

    w, bias = weights[:-1], weights[-1]
    p, q = expit(yes @ w + bias), expit(no @ w + bias)
    inconsistent, lower = p + q - 1, np.minimum(p, q)
    loss = np.mean(inconsistent**2 + lower**2) + _CCS_DECAY / 2 * (w @ w)
    by_p = (2 * inconsistent + 2 * lower * (p <= q)) * p * (1 - p) / len(p)
    by_q = (2 * inconsistent + 2 * lower * (q < p)) * q * (1 - q) / len(p)
    return float(loss), np.append(by_p @ yes + by_q @ no + _CCS_DECAY * w, by_p.sum() + by_q.sum())


def _rank_sign(along: Float[np.ndarray, " items"], labels: Bool[np.ndarray, " items"]) -> float:
    """Positive where the items of `labels` have the higher ranks."""
    from scipy.stats import rankdata

    ranks = rankdata(along)
    return float(ranks[labels].mean() - ranks[~labels].mean())
