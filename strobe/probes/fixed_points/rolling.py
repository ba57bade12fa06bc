"""Running the map forward: where carries come to rest, and what those that do not do instead."""

from typing import NamedTuple

import torch
from jaxtyping import Float64, Int
from torch import Tensor

from strobe.probes.fixed_points.system import System

PERIODIC, ELSEWHERE, ESCAPED = -1, -2, -3
NAMES = {PERIODIC: "a cycle", ELSEWHERE: "not at rest", ESCAPED: "escaped"}
# A cycle is looked for among the last carries; longer ones count as not at rest.
LONGEST_CYCLE = 64
_REACH = 1e6


class Rolled(NamedTuple):
    """`label` [n]: the attractor each carry comes to, or one of PERIODIC, ELSEWHERE, ESCAPED; `steps` [n]: how many it
    took to come within `near` of the attractor for good; -1 for those that come to none."""

    label: Int[Tensor, " n"]
    steps: Int[Tensor, " n"]


@torch.no_grad()
def roll_out(
    system: System,
    start: Float64[Tensor, "n size"],
    attractors: Float64[Tensor, "k size"],
    *,
    steps: int,
    near: float = 1e-4,
) -> Rolled:
    """Run each of `start` for `steps` steps and say which of `attractors` it comes to.

    A carry has come to an attractor if it is within `near` (relative to 1 + its largest entry) of it at the end; a
    stable point keeps what is that near. One that returns to where it was up to 64 steps before is on a cycle.
    """
    x, steps_in = start.clone(), torch.full((len(start),), -1)
    gone, recent = torch.zeros(len(start), dtype=torch.bool), []
    label = torch.full((len(start),), ELSEWHERE)
    for t in range(steps + 1):
        if len(attractors):
            gap, nearest = torch.cdist(x, attractors).min(1)
            inside = gap <= near * (1 + attractors.abs().amax(1)[nearest])
            entered = inside & ((steps_in < 0) | (label != nearest))
            steps_in = torch.where(entered, t, torch.where(inside, steps_in, -1))
            label = torch.where(inside, nearest, ELSEWHERE)
        if t + LONGEST_CYCLE >= steps:
            recent.append(x)
        if t == steps:
            break
        x = system.step(x)
        gone |= ~x.isfinite().all(1) | (x.abs().amax(1) > _REACH)
        # Where it has gone to is of no interest, only that it has.
        x = torch.where(gone[:, None], start.new_zeros(()), x)
    returns = torch.stack([(x - before).abs().amax(1) for before in recent[:-1]]) if len(recent) > 1 else x.new_ones(1)
    periodic = (label == ELSEWHERE) & (returns.amin(0) <= near * (1 + x.abs().amax(1)))
    label = torch.where(periodic, PERIODIC, label)
    label = torch.where(gone, ESCAPED, label)
    return Rolled(label, torch.where(label >= 0, steps_in, -1))
