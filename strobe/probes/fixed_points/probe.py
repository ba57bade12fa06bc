"""`fixed_points`: the fixed and slow points of a recurrence under a held input, beside those of a shuffled one."""

from collections.abc import Callable
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from strobe.core.provenance import Provenance
from strobe.probes.fixed_points import search as searching
from strobe.probes.fixed_points.candidates import random_carries
from strobe.probes.fixed_points.classify import saddle_index
from strobe.probes.fixed_points.finder import Limits
from strobe.probes.fixed_points.result import FixedPoints
from strobe.probes.fixed_points.spectra import eigenvalues as spectrum
from strobe.probes.fixed_points.spectra import signs
from strobe.probes.fixed_points.system import System, as_carries

Tick = Callable[[int, int, str], None]
"""Called with (done, total, what) between pieces of work; it may raise to cancel."""

_RUNS, _STEPS = 24, 40
# Candidates of one round of the search between points, per kind of candidate.
_MOST = 256


def fixed_points(
    source: System | nn.Module,
    initial: Any = None,
    *,
    held: Any = None,
    layer: int | None = None,
    n_initial: int = 1024,
    rounds: int = 8,
    control: Literal["shuffled"] | System | None = "shuffled",
    slow_below: float | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    progress: Tick | None = None,
) -> FixedPoints:
    """Fixed and slow points of `source`: a `System`, a `torch.nn` RNN, GRU, LSTM or cell, or a loaded model's layer.

    `held`: the input kept constant, for a module or a layer (`strobe.probes.fixed_points.held`). `initial` [n, size]:
    carries to search from; `n_initial` random ones if None. `rounds`: how often to search again between what was found,
    at most. `control`: what to compare with, "shuffled" recurrent weights where the system has some; None for none.
    `slow_below`: the largest speed of a slow point; None for a twentieth of the initial carries' median speed (ours).
    Neither the caller's tensors nor `requires_grad` are touched; the random state is left as it was.

    Sussillo & Barak 2013, "Opening the black box" (the objective |F(x) - x|); the method is in `finder`.

    Raises ValueError for initial carries that do not fit, are not finite or are none at all, and for a layer that is
    linear in its carry: `held_fixed_point` solves that one exactly.
    """
    system = system_of(source, held, layer)
    limits = limits or Limits()
    if initial is None:
        carries = random_carries(system, n_initial, seed)
    else:
        carries = as_carries(initial, system.size, "initial carries")
    other = system.shuffled(seed) if control == "shuffled" and system.shuffled is not None else control
    other = None if isinstance(other, str) else other
    settings = {
        "held": system.held,
        "initial": f"{len(carries)} random carries" if initial is None else f"{len(carries)} carries given",
        "rounds": rounds,
        "slow_below": slow_below,
        "tolerance": limits.tolerance,
        "max_iterations": limits.max_iterations,
        "dtype": "float64",
    }
    tick = progress or (lambda done, total, what: None)
    tick(0, 2, "searching")
    answers: list[FixedPoints | None] = [None]
    for i, one in enumerate([x for x in (other, system) if x is not None]):
        start = carries if one is system or initial is not None else random_carries(one, n_initial, seed)
        compared = "none" if one is not system or other is None else _control_in_words(control)
        provenance = Provenance(
            model=one.model or one.name,
            weights_hash=one.weights_hash,
            seed=seed,
            settings=settings,
            control=None if compared == "none" else compared,
        )
        found = searching.search(one, start, limits, slow_below=slow_below, rounds=rounds, most=_MOST, seed=seed)
        answers.append(_result(one, found, start, answers[-1], provenance))
        tick(i + 1, 2, "searching")
    result = answers[-1]
    assert result is not None
    return result


def _control_in_words(control: Any) -> str:
    return "recurrent weights shuffled within each gate, one draw" if control == "shuffled" else f"{control.name}"


def system_of(source: Any, held: Any, layer: int | None) -> System:
    """`source` as a `System`: one already, a `torch.nn` recurrence, or a nonlinear layer of a loaded model."""
    if isinstance(source, System):
        if held is not None or layer is not None:
            raise ValueError("a System already has its held input; leave out held and layer")
        return source
    if hasattr(source, "mixers"):
        from strobe.probes.fixed_points.held import layer_system

        return layer_system(source, held, layer)
    if isinstance(source, nn.Module):
        from strobe.probes.fixed_points.modules import from_module

        return from_module(source, held)
    raise TypeError(
        f"a {type(source).__name__} was given; give a System, a torch.nn RNN, GRU, LSTM or cell, or a loaded model "
        "(and any other recurrence as from_function(step, size))"
    )


@torch.no_grad()
def _result(
    system: System, found: searching.Search, start: Tensor, control: FixedPoints | None, provenance: Provenance
) -> FixedPoints:
    eigenvalues = found.eigenvalues.numpy()
    order = np.lexsort((np.abs(eigenvalues[:, 0]), saddle_index(eigenvalues)))
    points = found.points[torch.from_numpy(order)]
    return FixedPoints(
        system=system.name,
        held=system.held,
        fields=[(name, prod(shape)) for name, shape in system.fields],
        points=points.numpy(),
        speeds=system.speed(points).numpy(),
        eigenvalues=eigenvalues[order],
        signs=signs(found.eigenvalues)[torch.from_numpy(order)].numpy(),
        hits=np.array(found.hits, dtype=np.int64)[order],
        slow_points=found.slow.numpy(),
        slow_speeds=system.speed(found.slow).numpy(),
        slow_eigenvalues=spectrum(system, found.slow, found.limits.dense_up_to).numpy(),
        slow_below=float(found.slow_below),
        ends=found.ends,
        exhausted=found.exhausted,
        n_later=found.n_later,
        rounds=found.rounds,
        has_box=system.box is not None,
        trajectories=_roll(system, start[:_RUNS]).numpy(),
        control=control,
        provenance=provenance,
    )


def _roll(system: System, x: Tensor) -> Tensor:
    """[run, time, size]: `_STEPS` steps from each carry; runs that leave the finite numbers are left out."""
    path = [x]
    for _ in range(_STEPS):
        path.append(system.step(path[-1]))
    runs = torch.stack(path, 1)
    return runs[runs.isfinite().flatten(1).all(1) & (runs.abs().flatten(1).amax(1) < 1e6)]
