"""A layer of a loaded model under a held token: its input once everything below has settled, and what it becomes.

Layers settle one after the other. A layer linear in its carry goes to its closed-form fixed point, whose read feeds the
next; convolutions and token shifts fill with the held input; attention over equal values answers as over one. So the
input of a layer is found exactly, without running the text out, unless a nonlinear layer lies below: that one is run
until it stands still, from the empty carry.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor

from strobe.models.windows import windows_at
from strobe.probes.fixed_points.affine import Affine, solve_affine
from strobe.probes.fixed_points.modules import cell_system
from strobe.probes.fixed_points.system import System

NONLINEAR = ("elman", "gru", "lstm")
_SETTLING_STEPS, _SETTLED = 20_000, 1e-12


class HeldLayer(NamedTuple):
    """One mixer under a held input, in float64 and a batch of one: `family`, its `inputs` at a token after the windows
    have filled (no time axis), its initial memory, and the filled `windows`."""

    mixer: Any
    inputs: Any
    start: Any
    windows: dict[str, Tensor]


def layer_system(model: Any, held: Any, layer: int | None) -> System:
    """The system of one nonlinear layer (Elman, GRU, LSTM) of `model` under the held input.

    `held`: a token id or a text of one token, or real inputs [d_input] where the model takes those (None: 0).
    Raises ValueError for a layer without a recurrence, and for one linear in its carry.
    """
    layer = recurrent_layer(model, layer)
    name = f"blocks.{layer}.mixer"
    here = hold(model.mixers[name], settled_input(model, held, name))
    kind = here.mixer.family.name
    if kind not in NONLINEAR:
        raise ValueError(
            f"a search was asked for, but layer {layer} of {model.model_name} ({kind}) is linear in its carry under a "
            "held input: held_fixed_point solves it exactly"
        )
    s = here.inputs
    b_r = getattr(s, "b_r", torch.zeros_like(s.b))
    system = cell_system(
        kind,
        s.W,
        s.R,
        s.b,
        b_r,
        s.x[0],
        name=f"layer {layer} ({kind}) of {model.model_name}",
        held=in_words(model, held),
    )
    return _of_model(system, model)


def _of_model(system: System, model: Any) -> System:
    from dataclasses import replace

    return replace(system, model=model.model_name, weights_hash=model.weights_hash())


def recurrent_layer(model: Any, layer: int | None) -> int:
    """`layer`, or the only one there is. Raises ValueError where there is none, several, or not that one."""
    have = [
        int(n.split(".")[1]) for n in model.mixers if n.endswith(".mixer") and model.mixers[n].family.name != "identity"
    ]
    if not have:
        raise ValueError(
            f"{model.model_name} has no recurrent layer, so no carry stands still under a held token; where a block is "
            "applied again and again, its depth is a time: give from_function that block"
        )
    if layer is None and len(have) > 1:
        raise ValueError(f"{model.model_name} has recurrent layers {have}; say which one")
    layer = have[0] if layer is None else layer
    if layer not in have:
        raise ValueError(f"layer {layer} of {model.model_name} was asked for; it has recurrent layers {have}")
    return layer


def hold(mixer: Any, x: Tensor) -> HeldLayer:
    """A float64 copy of `mixer` that reads `x` [d_model] for ever; the mixer itself is not touched."""
    double = copy.deepcopy(mixer).to(device="cpu", dtype=torch.float64).requires_grad_(False)
    double.run = None
    start = double.init_carry(1, torch.float64, torch.device("cpu"))
    memory = double.memory_of(start)
    windows = [f for f in start._fields if f not in memory._fields]
    time = 2 + max((getattr(start, w).shape[1] for w in windows), default=0)
    with torch.no_grad():
        signals, streams = double.project(x.detach().cpu().double().expand(1, time, -1), start, None)
        inputs = double.family.at(double.inputs(signals), time - 1)
        filled = {w: windows_at(streams[w], getattr(start, w), [time - 1])[:, 0] for w in windows}
    return HeldLayer(double, inputs, memory, filled)


def settle(here: HeldLayer) -> tuple[Any, Affine | None]:
    """(the memory at rest, a NamedTuple of [1, ...]; its closed form where the layer is linear in its carry).

    A nonlinear layer is run from its initial carry. Raises ValueError if it does not come to rest.
    """
    family = here.mixer.family
    if family.transition is not None:
        affine = solve_affine(_unbatched(family.transition(here.inputs)), tuple(here.start[0].shape[1:]))
        return type(here.start)(affine.memory[None]), affine
    if family.name == "wkv":
        return _settled_wkv(here)
    if not here.start:
        return here.start, None
    memory, moved = here.start, float("inf")
    for _ in range(_SETTLING_STEPS):
        after, _ = family.step(here.inputs, memory)
        moved = max(float((a - b).abs().max()) for a, b in zip(after, memory, strict=True))
        memory = after
        if moved <= _SETTLED:
            return memory, None
    raise ValueError(
        f"a {family.name} layer does not come to rest under the held input (it moves {moved:.2g} a step after "
        f"{_SETTLING_STEPS}), so the layers above it have no fixed point; look at that layer itself"
    )


def _settled_wkv(here: HeldLayer) -> tuple[Any, Affine]:
    """RWKV-4: num = v / (1 - e^w), den = 1 / (1 - e^w) at the scale max = k, where both decay by e^w.

    In the stored coordinates `max` itself has the eigenvalue 0; it scales num and den and is no memory of its own.
    """
    k, v, w = here.inputs.k, here.inputs.v, here.inputs.w
    weight = -1 / torch.expm1(w)
    memory = type(here.start)(v * weight, weight.expand_as(v).clone(), k.clone())
    affine = Affine(memory.num[0], torch.exp(w)[:, None].to(torch.complex128), 2, ["stable"] * len(w))
    return memory, affine


def settled_input(model: Any, held: Any, name: str) -> Tensor:
    """What the mixer called `name` reads [d_model], float64, when every layer below it is at rest.

    Raises ValueError if a layer below has no fixed point.
    """
    inputs = _inputs(model, held)
    state = model.init_state(1)
    order = _order(model, inputs)
    for below in order[: order.index(name)]:
        here = hold(model.mixers[below], _reads(model, inputs, state, below))
        memory, affine = settle(here)
        if affine is not None and "none" in affine.status:
            raise ValueError(
                f"{below} drifts without end under the held input, so {name} has no settled input; look at {below}"
            )
        old = state.carries[below]
        new = {**memory._asdict(), **here.windows}
        new = {f: new[f].to(getattr(old, f)) for f in old._fields}
        state.carries[below] = type(old)(**new)
    return _reads(model, inputs, state, name).double()


def _order(model: Any, inputs: Tensor) -> list[str]:
    """The names of the mixers in the order in which a pass comes to them."""
    seen: list[str] = []
    handles = [m.register_forward_pre_hook(lambda _m, _a, n=name: seen.append(n)) for name, m in model.mixers.items()]
    try:
        with torch.no_grad():
            model.forward(inputs, return_type=None)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _reads(model: Any, inputs: Tensor, state: Any, name: str) -> Tensor:
    """The input of mixer `name` at one token that starts from `state`."""
    caught: list[Tensor] = []
    handle = model.mixers[name].register_forward_pre_hook(lambda _m, args: caught.append(args[0].detach()[0, 0]))
    try:
        with torch.no_grad():
            model.forward(inputs, state, return_type=None)
    finally:
        handle.remove()
    return caught[0]


def _inputs(model: Any, held: Any) -> Tensor:
    d_input = getattr(getattr(model, "config", None), "d_input", 0)
    like = next(model.parameters())
    if d_input:
        x = torch.zeros(d_input) if held is None else torch.as_tensor(held)
        if x.shape != (d_input,) or not bool(x.isfinite().all()):
            raise ValueError(
                f"{model.model_name} reads {d_input} finite numbers a step; shape {tuple(x.shape)} was given"
            )
        return x.detach().to(like).view(1, 1, d_input)
    if isinstance(held, str):
        tokens, _ = model.tokenize(held)
        if tokens.shape[1] != 1:
            raise ValueError(
                f"the held text {held!r} is {tokens.shape[1]} tokens; give one token, as text or as its id"
            )
        return tokens
    if not isinstance(held, int):
        raise ValueError(
            f"{held!r} was given to hold; {model.model_name} reads tokens: give an id or a text of one token"
        )
    return torch.tensor([[held]], device=like.device)


def in_words(model: Any, held: Any) -> str:
    """What is held, for a title: the token and its id, or the numbers."""
    x = _inputs(model, held)
    if x.is_floating_point():
        return f"input {[round(v, 4) for v in x.flatten().tolist()]}"
    token = int(x)
    text = f" {model.tokenizer.decode([token])!r}" if getattr(model, "tokenizer", None) is not None else ""
    return f"token {token}{text}"


def _unbatched(transition: Any) -> Any:
    return type(transition)(*(None if x is None else x[0] for x in transition))
