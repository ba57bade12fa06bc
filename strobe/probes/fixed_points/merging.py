"""Which of several carries are one: converged roots differ by rounding, roots of their own by much more."""

import torch
from torch import Tensor


def merge(known: Tensor, new: Tensor, same: float) -> tuple[Tensor, Tensor]:
    """(`known` and those of `new` that are not among them, for each of `new` which point it is).

    A point stands for everything within `same` of it, relative to 1 + its largest entry, so that a line of points stays
    a line and is not chained into one.
    """
    points, which = [known], torch.full((len(new),), -1)
    if len(known) and len(new):
        gap, nearest = torch.cdist(new, known).min(1)
        which = torch.where(gap <= same * (1 + new.abs().amax(1)), nearest, which)
    count = len(known)
    while bool((which < 0).any()):
        first = int((which < 0).nonzero()[0, 0])
        here = new[first]
        close = (new - here).norm(dim=-1) <= same * (1 + here.abs().max())
        which[close & (which < 0)] = count
        points.append(here[None])
        count += 1
    return torch.cat(points), which
