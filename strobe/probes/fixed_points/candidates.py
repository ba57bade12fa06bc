"""Where to search from: carries the recurrence visits, and, once points are found, places between them."""

import torch
from jaxtyping import Float64
from torch import Tensor

from strobe.probes.fixed_points.system import System

# Steps taken from random carries: the later ones lie near attractors and on the way past saddles.
_ROLLOUT = (0, 2, 8, 32)
# A wide box (the c of an LSTM) is mostly empty: carries start within this of 0 in each direction.
_WIDEST = 2.0


@torch.no_grad()
def random_carries(system: System, n: int, seed: int) -> Float64[Tensor, "n size"]:
    """`n` carries: uniform in the system's box (standard normal where it has none), a quarter each as drawn and after
    2, 8 and 32 steps. A row whose steps leave the finite numbers is given as drawn.
    """
    if n < 1:
        raise ValueError(f"{n} initial carries were asked for; give 1 or more")
    generator = torch.Generator().manual_seed(seed)
    if system.box is None:
        x = torch.randn(n, system.size, generator=generator, dtype=torch.float64)
    else:
        unit = 2 * torch.rand(n, system.size, generator=generator, dtype=torch.float64) - 1
        x = unit * system.box.clamp_max(_WIDEST)
    steps = torch.tensor([_ROLLOUT[i % len(_ROLLOUT)] for i in range(n)])
    moved = x.clone()
    for t in range(max(_ROLLOUT)):
        going = steps > t
        if not bool(going.any()):
            break
        moved[going] = system.step(moved[going])
    usable = moved.isfinite().all(1) & (moved.abs().amax(1) < 1e6)
    return torch.where(usable[:, None], moved, x)


def between(points: Float64[Tensor, "k size"], most: int, seed: int) -> Float64[Tensor, "n size"]:
    """Up to `most` carries between `points`: midpoints of pairs, and the fourth corner of parallelograms.

    Points of trained networks often lie on cubes and chains, where a saddle sits between two neighbours and a missing
    corner opposite a known one.
    """
    k = len(points)
    if k < 2:
        return points.new_zeros(0, points.shape[1])
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.triu_indices(k, k, 1)
    pairs = torch.randperm(len(first), generator=generator)[: max(most * 2 // 3, 1)]
    middle = (points[first[pairs]] + points[second[pairs]]) / 2
    if k < 3:
        return middle
    corners = torch.stack([torch.randperm(k, generator=generator)[:3] for _ in range(max(most // 3, 1))])
    fourth = points[corners[:, 0]] + points[corners[:, 1]] - points[corners[:, 2]]
    return torch.cat([middle, fourth])
