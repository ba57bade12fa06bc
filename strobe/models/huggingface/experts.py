"""Mixtures of experts in float64, which the grouped product of their matrices does not have."""

from typing import Any

import torch


def without_grouped_product(model: Any) -> None:
    """In float64, have transformers loop over the experts of `model` instead: a family's `prepare`."""
    if next(model.parameters()).dtype == torch.float64:
        model.set_experts_implementation("eager")
