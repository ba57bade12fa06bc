"""The search: many candidates, each ending as fixed, slow, escaped or failed; then again between what was found."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from strobe.probes.fixed_points.anchors import Anchors
from strobe.probes.fixed_points.candidates import between, random_carries
from strobe.probes.fixed_points.classify import MARGINAL
from strobe.probes.fixed_points.finder import Limits, Outcome, solve
from strobe.probes.fixed_points.merging import merge
from strobe.probes.fixed_points.outcome import SAME
from strobe.probes.fixed_points.spectra import eigenvalues, pad, signs
from strobe.probes.fixed_points.system import System, displacement

FIXED, SLOW, ESCAPED, FAILED = ENDS = ("fixed", "slow", "escaped", "failed")
# Slow points are minima of a flat function, so known less well.
_SAME_SLOW = 1e-3
# A stall is a slow point if it moves less than this share of what a typical initial carry moves (ours).
SLOW_SHARE = 0.05


class Ended(NamedTuple):
    """Where candidates ended: `x` [n, size], `end` [n] (a place in `ENDS`), `exhausted`: failed for want of budget."""

    x: Tensor
    end: Tensor
    exhausted: int


@dataclass
class Search:
    """What a search has found so far, with the spectrum of each point.

    `hits` and `ends` count the initial carries, not those of later rounds.
    """

    system: System
    limits: Limits
    slow_below: float
    points: Tensor
    eigenvalues: Tensor
    slow: Tensor
    hits: list[int] = field(default_factory=list)
    ends: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ENDS, 0))
    exhausted: int = 0
    n_later: int = 0
    rounds: int = 0


@torch.no_grad()
def search(
    system: System, initial: Tensor, limits: Limits, *, slow_below: float | None, rounds: int, most: int, seed: int
) -> Search:
    """Search from `initial` [n, size], then up to `rounds` times between the points, until a round finds no new one.

    While the index sum of a map with a box is not 1, points are known to be missing, and each round that leaves it so
    searches from `most` new random carries too. They come last: far from every point of gated cells lie places from
    which nothing arrives, and a few of those cost more than all else. `slow_below`: see `SLOW_SHARE` for None.
    """
    speeds = system.speed(initial)
    usual = speeds[speeds.isfinite()]
    if slow_below is None:
        slow_below = SLOW_SHARE * float(usual.median()) if len(usual) else 0.0
    empty = initial.new_zeros(0, system.size)
    none = eigenvalues(system, empty, limits.dense_up_to)
    state = Search(system=system, limits=limits, slow_below=slow_below, points=empty, eigenvalues=none, slow=empty)
    anchors = Anchors(system.roots.reduce(initial[:1]).shape[1])
    ended = finish(system, initial, limits, slow_below, anchors)
    _add(state, ended, counted=True)
    for i in range(rounds):
        before, tried = len(state.points), state.n_later

        def again(candidates: Tensor) -> None:
            if len(candidates):
                state.n_later += len(candidates)
                _add(state, finish(system, candidates, limits, slow_below, anchors), counted=False)

        # Drawn anew in each round: of many points only some of the pairs are tried.
        again(between(_isolated(state), most, seed + 1 + i))
        if _known_incomplete(state):
            again(random_carries(system, most, seed + 1001 + i))
        if state.n_later == tried:
            break
        state.rounds += 1
        if len(state.points) == before and not _known_incomplete(state):
            break
    return state


def finish(system: System, start: Tensor, limits: Limits, slow_below: float, anchors: Anchors) -> Ended:
    """Solve from every carry of `start` and say how each ended: by what its end point does, not by the solver."""
    y, outcome, _ = solve(system.roots, system.roots.reduce(start), limits, anchors)
    x = system.roots.expand(y)
    stalled = (outcome == Outcome.STALLED) & x.isfinite().all(1)
    if bool(stalled.any()):
        # A minimum of the restated residual is no minimum of the speed; a slow point is the latter.
        x[stalled], outcome[stalled], _ = solve(displacement(system.step, system.jacobian), x[stalled], limits)
    finite = x.isfinite().all(1)
    x = torch.where(finite[:, None], x, 0.0)
    speed, size = system.speed(x), 1 + x.abs().amax(1)
    remains = system.roots.residual(system.roots.reduce(x)).norm(dim=-1)
    root = (speed <= limits.tolerance * size) & (remains <= limits.tolerance * size)
    rests = (outcome == Outcome.CONVERGED) | (outcome == Outcome.STALLED)
    outside = torch.zeros_like(root) if system.box is None else (x.abs() > system.box * (1 + 1e-9)).any(1)
    end = torch.full_like(outcome, ENDS.index(FAILED))
    end[rests & (speed <= slow_below)] = ENDS.index(SLOW)
    end[rests & root] = ENDS.index(FIXED)
    end[(outcome == Outcome.ESCAPED) | ~finite | (outside & ~root & rests)] = ENDS.index(ESCAPED)
    return Ended(x, end, int((outcome == Outcome.SEARCHING).sum()))


def _add(state: Search, ended: Ended, *, counted: bool) -> None:
    fixed = ended.end == ENDS.index(FIXED)
    points, which = merge(state.points, ended.x[fixed], SAME)
    state.hits += [0] * (len(points) - len(state.hits))
    new = torch.arange(len(points)) >= len(state.points)
    # A Krylov solution is as good as its products, and polishing would form a Jacobian.
    if state.system.size <= state.limits.dense_up_to:
        points[new] = polish(state.system, points[new])
    if bool(new.any()):
        found = eigenvalues(state.system, points[new], state.limits.dense_up_to)
        state.eigenvalues = pad([*state.eigenvalues, *found])
    state.points = points
    slow = ended.x[ended.end == ENDS.index(SLOW)]
    state.slow, _ = merge(state.slow, slow, _SAME_SLOW)
    if counted:
        for i in which.tolist():
            state.hits[i] += 1
        for i, name in enumerate(ENDS):
            state.ends[name] += int((ended.end == i).sum())
        state.exhausted += ended.exhausted


def polish(system: System, x: Tensor, steps: int = 3) -> Tensor:
    """Newton steps on F(x) - x itself, each kept only where it lowers the speed."""
    eye = torch.eye(system.size, dtype=x.dtype)
    for _ in range(steps if len(x) else 0):
        speed = system.speed(x)
        step, info = torch.linalg.solve_ex(system.jacobian(x) - eye, (x - system.step(x))[:, :, None])
        trial = x + step[..., 0]
        # Where I - J is nearly singular a step may slide along a line of fixed points: not further than rounding.
        near = (trial - x).abs().amax(1) <= 1e-6 * (1 + x.abs().amax(1))
        better = (system.speed(trial) < speed) & (info == 0) & near
        x = torch.where(better[:, None], trial, x)
    return x


def _isolated(state: Search) -> Tensor:
    """The points that are no part of a line or ring."""
    return state.points[~((state.eigenvalues.abs() - 1).abs() <= MARGINAL).any(1)]


def _known_incomplete(state: Search) -> bool:
    """Whether the index sum says that points are missing: only where a box is known and no point is marginal."""
    if state.system.box is None or len(_isolated(state)) < len(state.points):
        return False
    return int(signs(state.eigenvalues).sum()) != 1
