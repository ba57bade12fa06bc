"""How well a tokenwise map says what a block did: of the state, as published, and of the update, side by side.

cos(y, T(x)) is near one for any map close to the identity, because a block adds a small update to a large state; the
same measures of the update y - x do not have that head start.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# A vector shorter than this share of the state is the rounding of float32 and has no direction.
_NO_DIRECTION = 4 * torch.finfo(torch.float32).eps
# The tokenwise subspace holds this share of the predictions' squares.
ENERGY = 0.9
N_SPECTRUM = 64

# Names of the per-token measures, in the order of `per_token`.
PER_TOKEN = (
    "cos_state", "cos_update", "cos_state_residual", "cos_update_residual", "error_state", "error_update",
    "energy_state", "energy_update", "energy_state_residual", "energy_update_residual",
)  # fmt: skip


def cosine(
    a: Float[Tensor, "token d_model"], b: Float[Tensor, "token d_model"], size: Float[Tensor, " token"]
) -> Float[Tensor, " token"]:
    """Cosine of `a` and `b`; NaN where one is too short, against `size`, to have a direction."""
    long_a, long_b = a.norm(dim=-1), b.norm(dim=-1)
    found = (a * b).sum(-1) / (long_a * long_b)
    short = (long_a <= _NO_DIRECTION * size) | (long_b <= _NO_DIRECTION * size)
    # Rounding takes the cosine of parallel vectors past one, where the angle has no value.
    return torch.where(short, torch.nan, found.clamp(-1, 1))


def subspace(vectors: Float[Tensor, "token d_model"]) -> tuple[Tensor, Tensor]:
    """(right singular vectors [q, d_model] that hold `ENERGY` of the squares of `vectors`, the shares of all [d]).

    Not centred. No vectors, and shares of NaN, where all are zero.
    """
    _, s, right = torch.linalg.svd(vectors, full_matrices=False)
    total = s.square().sum()
    if total == 0:
        return right[:0], torch.full_like(s, torch.nan)
    share = s.square() / total
    return right[: int((share.cumsum(0) < ENERGY).sum()) + 1], share


def energy(basis: Tensor, v: Float[Tensor, "token d_model"], size: Tensor) -> Float[Tensor, " token"]:
    """Share of each vector's square that lies in the span of `basis` [q, d_model]; NaN where it has no direction."""
    if not len(basis):
        return torch.full_like(size, torch.nan)
    share = (v @ basis.mT).square().sum(-1) / v.square().sum(-1)
    return torch.where(v.norm(dim=-1) <= _NO_DIRECTION * size, torch.nan, share)


def per_token(
    x: Float[Tensor, "token d_model"], y: Float[Tensor, "token d_model"], predicted: Float[Tensor, "token d_model"]
) -> tuple[dict[str, Tensor], tuple[int, int], Tensor]:
    """(each of `PER_TOKEN` [token], dimensions of the two subspaces, spectrum of the predicted updates).

    `predicted` are the map's updates T(x) - x. The residual is y - T(x). Errors are its length over that of the state
    y, and over that of the update y - x.
    """
    size, update, mapped = y.norm(dim=-1), y - x, x + predicted
    residual = y - mapped
    state_basis, _ = subspace(mapped)
    update_basis, spectrum = subspace(predicted)
    moved = update.norm(dim=-1)
    long = residual.norm(dim=-1)
    values = (
        cosine(y, mapped, size),
        cosine(update, predicted, size),
        cosine(y, residual, size),
        cosine(update, residual, size),
        torch.where(size == 0, torch.nan, long / size),
        torch.where(moved <= _NO_DIRECTION * size, torch.nan, long / moved),
        energy(state_basis, y, size),
        energy(update_basis, update, size),
        energy(state_basis, residual, size),
        energy(update_basis, residual, size),
    )
    dims = (len(state_basis), len(update_basis))
    return dict(zip(PER_TOKEN, values, strict=True)), dims, spectrum[:N_SPECTRUM]
