"""Pearson correlations of every unit with every label in one pass, from sums, so that no unit's values are kept."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


class Correlations:
    """Sums over tokens, from which `found` makes r [label, unit].

    Values are taken from the first token's, so that a unit that hardly moves far from 0 loses no digits.
    """

    def __init__(self, n_units: int, n_labels: int) -> None:
        self._n = 0
        self._origin: Tensor | None = None
        self._x, self._xx = (torch.zeros(n_units, dtype=torch.float64) for _ in range(2))
        self._y, self._yy = (torch.zeros(n_labels, dtype=torch.float64) for _ in range(2))
        self._xy = torch.zeros(n_labels, n_units, dtype=torch.float64)

    def add(self, units: Float[Tensor, "token unit"], labels: Float[Tensor, "token label"]) -> None:
        """Count some tokens."""
        if self._origin is None:
            self._origin = units[0].clone()
        x, y = units - self._origin, labels.to(units)
        self._n += len(x)
        self._x += x.sum(0, dtype=torch.float64).cpu()
        self._xx += x.square().sum(0, dtype=torch.float64).cpu()
        self._y += y.sum(0, dtype=torch.float64).cpu()
        self._yy += y.square().sum(0, dtype=torch.float64).cpu()
        self._xy += (y.T @ x).double().cpu()

    def found(self) -> Float[np.ndarray, "label unit"]:
        """Pearson's r of each label and unit; NaN where either does not vary."""
        n = max(self._n, 1)
        x, y = (self._xx - self._x.square() / n).clamp(min=0), (self._yy - self._y.square() / n).clamp(min=0)
        # What is left of a constant after rounding is no variance.
        x[x <= 1e-7 * self._xx] = 0
        y[y <= 1e-7 * self._yy] = 0
        r = (self._xy - torch.outer(self._y, self._x) / n) / torch.outer(y, x).sqrt()
        r[~torch.outer(y, x).bool()] = torch.nan
        return r.numpy()
