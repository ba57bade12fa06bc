"""Piecewise-linear maps: ReLU networks whose fixed points and cycles can be solved for exactly.

    z' = A z + W1 relu(W2 z + h2) + h1

is the shallow PLRNN (Hess et al. 2023, arXiv 2306.04406, eq. 2). The other ReLU recurrences are special cases of it:

    PLRNN (Durstewitz 2017)            z' = A z + W relu(z) + h                           W1 = W, W2 = 1, h2 = 0
    clipped shallow PLRNN (Hess 2023)  z' = A z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1  twice as many ReLUs
    almost-linear RNN (Brenner 2024)   z' = A z + W phi(z) + h, ReLU on the last P units  the others join A
    ReLU RNN                           z' = relu(R z + drive)                             A = 0, W1 = 1, W2 = R

Shape letters: M latent dimensions, H ReLUs, n points at a time. Which ReLUs are open at a point is its *pattern* [H];
inside one pattern the map is affine.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from strobe.probes.fixed_points.system import System, from_function

Vector = Float64[np.ndarray, " _"]
Matrix = Float64[np.ndarray, "_ _"]


@dataclass(frozen=True, eq=False)
class PiecewiseLinear:
    """z' = A z + W1 relu(W2 z + h2) + h1: `A` [M, M], `W1` [M, H], `W2` [H, M], `h1` [M], `h2` [H], all float64.

    Raises ValueError for shapes that do not fit each other, or numbers that are not finite.
    """

    A: Matrix
    W1: Matrix
    W2: Matrix
    h1: Vector
    h2: Vector
    name: str = "piecewise-linear map"

    def __post_init__(self) -> None:
        size, units = self.A.shape[0], self.W2.shape[0]
        wanted = {"A": (size, size), "W1": (size, units), "W2": (units, size), "h1": (size,), "h2": (units,)}
        for name, shape in wanted.items():
            given = getattr(self, name)
            if given.shape != shape:
                raise ValueError(
                    f"{name} of shape {given.shape} was given beside A {self.A.shape} and W2 {self.W2.shape}; "
                    f"it has to be {shape}"
                )
            if not np.isfinite(given).all():
                raise ValueError(f"{name} holds numbers that are not finite; a map with them has no fixed points")

    @property
    def size(self) -> int:
        """M, the number of latent dimensions."""
        return self.A.shape[0]

    @property
    def units(self) -> int:
        """H, the number of ReLUs."""
        return self.W2.shape[0]

    def pattern(self, z: Float64[np.ndarray, "*batch size"]) -> Bool[np.ndarray, "*batch units"]:
        """Which ReLUs are open at `z`."""
        return z @ self.W2.T + self.h2 > 0

    def step(self, z: Float64[np.ndarray, "*batch size"]) -> Float64[np.ndarray, "*batch size"]:
        """One step of the map."""
        return z @ self.A.T + np.maximum(z @ self.W2.T + self.h2, 0) @ self.W1.T + self.h1

    def affine(
        self, pattern: Bool[np.ndarray, "*batch units"]
    ) -> tuple[Float64[np.ndarray, "*batch size size"], Float64[np.ndarray, "*batch size"]]:
        """(F, c) with z' = F z + c wherever the ReLUs are open as `pattern` says."""
        opened = self.W1 * pattern[..., None, :]
        return self.A + opened @ self.W2, opened @ self.h2 + self.h1

    def shuffled(self, seed: int) -> "PiecewiseLinear":
        """The control: the entries of W1 permuted, which keeps the numbers and loses what they did together."""
        order = np.random.default_rng(seed).permutation(self.W1.size)
        mixed = self.W1.ravel()[order].reshape(self.W1.shape)
        return PiecewiseLinear(self.A, mixed, self.W2, self.h1, self.h2, f"{self.name}, W1 shuffled")

    def system(self) -> System:
        """The same map for the finder and the Lyapunov spectrum (`strobe.probes.fixed_points.System`)."""
        import torch

        A, W1, W2, h1, h2 = (torch.from_numpy(x) for x in (self.A, self.W1, self.W2, self.h1, self.h2))

        def step(z: Any) -> Any:
            return z @ A.T + torch.relu(z @ W2.T + h2) @ W1.T + h1

        def jacobian(z: Any) -> Any:
            opened = (z @ W2.T + h2 > 0).to(z.dtype)
            return A + (W1 * opened[:, None, :]) @ W2

        return from_function(step, self.size, jacobian=jacobian, name=self.name)


def plrnn(A: Vector, W: Matrix, h: Vector) -> PiecewiseLinear:
    """Durstewitz's PLRNN, z' = diag(A) z + W relu(z) + h."""
    size = len(A)
    return PiecewiseLinear(np.diag(A), W, np.eye(size), h, np.zeros(size), "PLRNN")


def shallow_plrnn(A: Vector, W1: Matrix, W2: Matrix, h1: Vector, h2: Vector, *, clipped: bool) -> PiecewiseLinear:
    """Hess's shallow PLRNN with diagonal `A` [M]; `clipped`: with the second ReLU that keeps orbits bounded."""
    if not clipped:
        return PiecewiseLinear(np.diag(A), W1, W2, h1, h2, "shallow PLRNN")
    W1, W2 = np.concatenate([W1, -W1], axis=1), np.concatenate([W2, W2])
    return PiecewiseLinear(np.diag(A), W1, W2, h1, np.concatenate([h2, np.zeros_like(h2)]), "clipped shallow PLRNN")


def almost_linear_rnn(A: Vector, W: Matrix, h: Vector, relus: int) -> PiecewiseLinear:
    """Brenner's AL-RNN (2024, arXiv 2410.14240): z' = diag(A) z + W phi(z) + h, phi a ReLU on the last `relus` units.

    Raises ValueError unless 0 < relus <= M.
    """
    size = len(A)
    if not 0 < relus <= size:
        raise ValueError(f"{relus} ReLUs were asked for in {size} units; give 1 to {size}")
    linear = size - relus
    joined = np.diag(A) + np.concatenate([W[:, :linear], np.zeros((size, relus))], axis=1)
    return PiecewiseLinear(joined, W[:, linear:], np.eye(size)[linear:], h, np.zeros(relus), "almost-linear RNN")


def relu_rnn(R: Matrix, drive: Vector) -> PiecewiseLinear:
    """A ReLU RNN, z' = relu(R z + drive): `drive` [M] is what the held input and the bias add."""
    size = len(drive)
    return PiecewiseLinear(np.zeros((size, size)), np.eye(size), R, np.zeros(size), drive, "ReLU RNN")
