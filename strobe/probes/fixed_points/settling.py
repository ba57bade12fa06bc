"""One mixer of a model under a held input: a float64 copy of it, and where its memory comes to rest.

What is held is a turn of one token or several that come again for ever; at rest the memory is the same after each turn.
A layer linear in its carry is solved (`affine`); RWKV-4's is written down; a nonlinear one is run until it is still.
"""

import copy
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from strobe.models.windows import windows_at
from strobe.probes.fixed_points.affine import Affine, orbit, solve_loop

_SETTLING_STEPS, _SETTLED = 20_000, 1e-12


class NoRest(ValueError):
    """A layer that never comes to rest under what is held: an answer about the layer, no mistake of the caller."""


class HeldLayer(NamedTuple):
    """One mixer under a held turn, in float64 and a batch of one.

    `phases`: the inputs of its family at each token of a turn after the windows have filled (no time axis); `start`:
    its initial memory; `windows`: after a turn; `mixer_input` [turn, d_model]: what it reads.
    """

    mixer: Any
    phases: list[Any]
    start: Any
    windows: dict[str, Tensor]
    mixer_input: Tensor


def hold(mixer: Any, x: Tensor) -> HeldLayer:
    """A float64 copy of `mixer` that reads the turn `x` [turn, d_model] for ever; the mixer itself is not touched."""
    double = copy.deepcopy(mixer).to(device="cpu", dtype=torch.float64).requires_grad_(False)
    double.run = None
    start = double.init_carry(1, torch.float64, torch.device("cpu"))
    memory = double.memory_of(start)
    windows = [f for f in start._fields if f not in memory._fields]
    turn, width = len(x), max((getattr(start, w).shape[1] for w in windows), default=0)
    # Enough turns before the last one for every window to hold held inputs only.
    time = turn * (1 + ceil((width + 1) / turn))
    with torch.no_grad():
        repeated = x.detach().cpu().double().repeat(time // turn, 1)
        signals, streams = double.project(repeated[None], start, None)
        inputs = double.inputs(signals)
        phases = [double.family.at(inputs, time - turn + t) for t in range(turn)]
        filled = {w: windows_at(streams[w], getattr(start, w), [time - 1])[:, 0] for w in windows}
    return HeldLayer(double, phases, memory, filled, x.detach().cpu().double())


def is_linear(mixer: Any) -> bool:
    """Whether the memory of `mixer` under a held input is solved for; every other one is searched."""
    return mixer.family.transition is not None or mixer.family.name == "wkv"


def after_turn(here: HeldLayer, memory: Any) -> Any:
    """`memory` one turn later, by the family's definition of a step."""
    for phase in here.phases:
        memory, _ = here.mixer.family.step(phase, memory)
    return memory


def settle(here: HeldLayer) -> tuple[Any, Affine | None]:
    """(the memory at rest after a turn, a NamedTuple of [1, ...]; its closed form where the layer is linear).

    A nonlinear layer is run from its initial carry. Raises NoRest if it does not come to rest.
    """
    family = here.mixer.family
    if family.transition is not None:
        affine = solve_loop(_transitions(here), tuple(here.start[0].shape[1:]))
        return type(here.start)(affine.memory[None]), affine
    if family.name == "wkv":
        return _settled_wkv(here)
    if not here.start:
        return here.start, None
    memory, moved = here.start, float("inf")
    for _ in range(_SETTLING_STEPS):
        after = after_turn(here, memory)
        moved = max(float((a - b).abs().max()) for a, b in zip(after, memory, strict=True))
        memory = after
        if moved <= _SETTLED:
            return memory, None
    raise NoRest(
        f"a {family.name} layer does not come to rest under the held input (it moves {moved:.2g} a turn after "
        f"{_SETTLING_STEPS}), so the layers above it have no fixed point; look at that layer itself"
    )


def memories(here: HeldLayer, memory: Any) -> Tensor:
    """[token, ...]: the mixer's memory field after each token of a turn, from `memory` at rest. NaN where it is."""
    family, field = here.mixer.family, here.mixer.memory
    if family.transition is not None:
        return orbit(_transitions(here), memory[0][0])
    seen = []
    for phase in here.phases:
        memory, _ = family.step(phase, memory)
        seen.append(getattr(memory, field)[0])
    return torch.stack(seen)


def _transitions(here: HeldLayer) -> list[Any]:
    found = [here.mixer.family.transition(phase) for phase in here.phases]
    return [type(t)(*(None if x is None else x[0] for x in t)) for t in found]


def _settled_wkv(here: HeldLayer) -> tuple[Any, Affine]:
    """RWKV-4: num = sum_s e^(k_s + w age_s) v_s / (1 - e^(w turn)), den the same without v, over one turn's tokens.

    Both relative to e^max, where max = max_s (k_s + w age_s) is what the running maximum comes to; it scales num and
    den and is no memory of its own. In the stored coordinates it has the eigenvalue 0.
    """
    w, turn = here.phases[0].w, len(here.phases)
    logs = torch.stack([phase.k + w * (turn - 1 - t) for t, phase in enumerate(here.phases)])
    largest = logs.amax(0)
    weight = torch.exp(logs - largest) / -torch.expm1(w * turn)
    num = (weight * torch.stack([phase.v for phase in here.phases])).sum(0)
    memory = type(here.start)(num, weight.sum(0), largest)
    affine = Affine(memory.num[0], torch.exp(w * turn)[:, None].to(torch.complex128), 2, ["stable"] * len(w))
    return memory, affine
