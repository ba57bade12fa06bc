"""Tokenwise maps fitted around each token: T(x) = A x, with A from the token's neighbours and of a restricted class.

Rows are vectors: y ~ x A. Each function returns the update T(x) - x. All three are penalised towards the identity, with
weight `ridge` in units of the mean square of the neighbours' coordinates; that and the penalty are ours.

``diagonal``    A = diag(a)
``low_rank``    A = I + W, with the fitted updates X W of rank at most `rank`
``orthogonal``  A A^T = I: orthogonal Procrustes
"""

import torch
from jaxtyping import Float
from torch import Tensor

# Singular values of fitted updates below this share of the largest are rounding, and their directions are noise.
_NOTHING = 1e-12


def diagonal(
    x: Float[Tensor, "token d_model"],
    near_x: Float[Tensor, "token k d_model"],
    near_y: Float[Tensor, "token k d_model"],
    ridge: float,
) -> Float[Tensor, "token d_model"]:
    """a_j = 1 + sum x_j (y_j - x_j) / (sum x_j^2 + lambda), over the neighbours."""
    weight = _weight(near_x, ridge)[:, None]
    size = near_x.square().sum(1) + weight
    return x * (near_x * (near_y - near_x)).sum(1) / size.clamp_min(torch.finfo(x.dtype).tiny)


def low_rank(
    x: Float[Tensor, "token d_model"],
    near_x: Float[Tensor, "token k d_model"],
    near_y: Float[Tensor, "token k d_model"],
    ridge: float,
    rank: int,
) -> Float[Tensor, "token d_model"]:
    """Ridge regression of the updates on the vectors, fitted values cut to `rank` by their singular values.

    Solved in the space of the k neighbours: W = X^T (X X^T + lambda)^-1 D.
    """
    gram = near_x @ near_x.mT
    eye = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    weight = _weight(near_x, ridge).clamp_min(torch.finfo(x.dtype).tiny)
    alpha = torch.linalg.solve(gram + weight[:, None, None] * eye, near_y - near_x)
    fitted = gram @ alpha
    values, left = torch.linalg.eigh(fitted @ fitted.mT)
    values, left = values[:, -rank:], left[:, :, -rank:]
    kept = values > _NOTHING * values[:, -1:]
    inverse = torch.where(kept, 1 / torch.where(kept, values, 1.0), 0.0)
    update = (x[:, None] @ near_x.mT) @ alpha
    # V V^T with V = F^T U / s: the span of the fitted updates' first singular directions.
    return ((update @ fitted.mT @ left) * inverse[:, None] @ left.mT @ fitted)[:, 0]


def orthogonal(
    x: Float[Tensor, "token d_model"],
    near_x: Float[Tensor, "token k d_model"],
    near_y: Float[Tensor, "token k d_model"],
    ridge: float,
) -> Float[Tensor, "token d_model"]:
    """Minimises |X A - Y|^2 + lambda |A - I|^2 over A A^T = I: the polar factor of X^T Y + lambda I.

    Where there are fewer than d_model / 2 neighbours, A differs from I only in the span of their vectors, so the
    factor is taken there: 2 k dimensions instead of d_model.
    """
    d, k = near_x.shape[-1], near_x.shape[1]
    basis = None
    if 2 * k < d:
        basis = torch.linalg.qr(torch.cat([near_x, near_y], 1).mT).Q
        x, near_x, near_y = (x[:, None] @ basis)[:, 0], near_x @ basis, near_y @ basis
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    # The mean square is over d_model coordinates, whichever of them the basis spans.
    weight = _weight(near_x, ridge) * (x.shape[-1] / d)
    left, _, right = torch.linalg.svd(near_x.mT @ near_y + weight[:, None, None] * eye)
    update = (x[:, None] @ (left @ right - eye))[:, 0]
    return update if basis is None else (update[:, None] @ basis.mT)[:, 0]


def _weight(near_x: Tensor, ridge: float) -> Tensor:
    """The penalty: `ridge` x the neighbours' summed squares over the number of coordinates: [token]."""
    return ridge * near_x.square().sum((1, 2)) / near_x.shape[-1]
