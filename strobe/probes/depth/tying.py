"""Blocks that share one set of weights, in a copy of any model: which may, and how."""

import copy
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def kinds(model: Any) -> tuple[int, ...]:
    """A label for each block, the same for blocks made of the same modules with parameters of the same shapes.

    Only such blocks can share weights. Labels count from 0 in the order of their first block.
    """
    found: list[Any] = []
    labels = []
    for block in model.blocks:
        what = [(name, type(module).__name__) for name, module in block.named_modules()]
        what += [(name, tuple(p.shape)) for name, p in nn.Module.named_parameters(block)]
        if what not in found:
            found.append(what)
        labels.append(found.index(what))
    return tuple(labels)


def tied_copy(model: Any, assignment: Sequence[int]) -> tuple[Any, list[Tensor]]:
    """(a copy of `model` in which block i has the weights of group ``assignment[i]``, the shared parameters).

    A group starts as the block in its middle. Only shared parameters are to be trained; `model` is left as it is.
    Raises ValueError for an assignment of another length, or a group of blocks that cannot share.
    """
    n, of = len(model.blocks), kinds(model)
    if len(assignment) != n:
        raise ValueError(f"an assignment of {len(assignment)} blocks was given; {model.model_name} has {n}")
    copied = copy.deepcopy(model).requires_grad_(False)
    shared: list[Tensor] = []
    for group in sorted(set(assignment)):
        members = [i for i in range(n) if assignment[i] == group]
        if len({of[i] for i in members}) > 1:
            raise ValueError(
                f"blocks {members} were to share weights; they are of different kinds ({[of[i] for i in members]}, see "
                "`kinds`): give groups of one kind"
            )
        first = copied.blocks[members[(len(members) - 1) // 2]]
        source = dict(first.named_modules(remove_duplicate=False))
        for member in members:
            for name, module in copied.blocks[member].named_modules(remove_duplicate=False):
                for parameter in list(module._parameters):
                    setattr(module, parameter, getattr(source[name], parameter))
        shared += [p.requires_grad_() for p in nn.Module.parameters(first)]
    return copied, shared
