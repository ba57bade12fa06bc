"""What a fixed point is, from the eigenvalues of the Jacobian there: its kind, index, timescales and periods."""

import numpy as np
from jaxtyping import Complex128, Float64, Inexact, Int

# An eigenvalue this close to the unit circle decides nothing: float64 eigenvalues are good to about 1e-8 at best.
MARGINAL = 1e-6
_REAL = 1e-9

Spectrum = Complex128[np.ndarray, "n leading"]


def saddle_index(eigenvalues: Spectrum) -> Int[np.ndarray, " n"]:
    """How many directions grow: eigenvalues with |lambda| > 1, marginal ones left out."""
    return (np.abs(eigenvalues) > 1 + MARGINAL).sum(-1)


def is_marginal(eigenvalues: Spectrum) -> np.ndarray:
    """Whether some eigenvalue lies on the unit circle, within `MARGINAL`: [n] booleans."""
    return np.asarray((np.abs(np.abs(eigenvalues) - 1) <= MARGINAL).any(-1))


def kinds(eigenvalues: Spectrum, size: int | None = None) -> list[str]:
    """The name of each point: "stable node", "stable focus", "saddle of index k", "repeller", "marginal", "undecided".

    A repeller grows in every direction. A focus is a stable point whose slowest direction turns (its eigenvalue is
    complex); a negative real one alternates and counts as a node. "marginal" says that linearising does not decide:
    part of a line or ring, or a bifurcation. `size` of the carry, where only its leading eigenvalues are given (rows
    may end in NaN): without one inside the unit circle among them a point is "undecided".
    """
    size = eigenvalues.shape[1] if size is None else size
    index, marginal, magnitude = saddle_index(eigenvalues), is_marginal(eigenvalues), np.abs(eigenvalues)
    leading, known = leading_eigenvalue(eigenvalues), (~np.isnan(magnitude)).sum(-1)
    inside = np.asarray((magnitude < 1 - MARGINAL).any(-1))
    names = []
    for i in range(len(eigenvalues)):
        if known[i] == 0 or (known[i] < size and not inside[i]):
            names.append("undecided")
        elif marginal[i]:
            names.append("marginal")
        elif index[i] == 0:
            names.append("stable focus" if abs(leading[i].imag) > _REAL else "stable node")
        else:
            names.append("repeller" if index[i] == size else f"saddle of index {index[i]}")
    return names


def leading_eigenvalue(eigenvalues: Spectrum) -> Complex128[np.ndarray, " n"]:
    """The eigenvalue of largest magnitude; of a pair, the one with positive imaginary part. NaN where none is known."""
    if not len(eigenvalues):
        return np.zeros(0, dtype=np.complex128)
    order = np.nan_to_num(np.abs(eigenvalues), nan=-1.0).argmax(-1)
    found = eigenvalues[np.arange(len(eigenvalues)), order]
    return np.real(found) + 1j * np.abs(np.imag(found))


def timescales(eigenvalues: Inexact[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """Tau = -1 / ln |lambda| in steps: how long a disturbance takes to shrink by e. Negative where it grows, infinite
    on the unit circle, 0 for an eigenvalue 0."""
    with np.errstate(divide="ignore"):
        # 0 - x, so that |lambda| = 1 gives +inf and lambda = 0 gives +0.
        return 1 / (0.0 - np.log(np.abs(eigenvalues)))


def periods(eigenvalues: Complex128[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """2 pi / |arg lambda| in steps: 2 for a negative real eigenvalue, infinite for a positive one."""
    with np.errstate(divide="ignore"):
        return 2 * np.pi / np.abs(np.angle(eigenvalues))
