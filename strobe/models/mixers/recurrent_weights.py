"""Initialisation shared by the nonlinear cells, as in `torch.nn.RNN`: uniform in +-1/sqrt(hidden)."""

import math

import torch
from torch import nn


def init_uniform(module: nn.Module, hidden: int) -> None:
    """Fill every parameter of `module` from U(-1/sqrt(hidden), 1/sqrt(hidden))."""
    bound = 1 / math.sqrt(hidden)
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            parameter.uniform_(-bound, bound)
