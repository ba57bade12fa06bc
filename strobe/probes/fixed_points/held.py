"""A layer of a loaded model under a held token, or a short turn of tokens that comes again for ever.

Layers settle one after the other. A layer linear in its carry goes to its closed-form rest, whose read feeds the next;
convolutions and token shifts fill with the held input; attention over equal values answers as over one (what it saw
before all settled weighs ever less, as one over the number of tokens). So the input of
a layer is found exactly, without running the text out, unless a nonlinear layer lies below: that one is run until it
stands still, from the empty carry.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from strobe.kernels.rnn import NONLINEAR
from strobe.probes.fixed_points.affine import Affine
from strobe.probes.fixed_points.modules import cell_system
from strobe.probes.fixed_points.settling import HeldLayer, NoRest, hold, settle
from strobe.probes.fixed_points.system import System, in_turn


def layer_system(model: Any, held: Any, layer: int | None) -> System:
    """The system of one nonlinear layer (Elman, GRU, LSTM, sLSTM) of `model` under the held input.

    `held`: see `as_inputs`. Held tokens that come in turn make one system of a whole turn, so that its fixed points are
    the layer's cycles under them. Raises ValueError for a layer without a recurrence, and for one linear in its carry.
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
    title, said = f"layer {layer} ({kind}) of {model.model_name}", in_words(model, held)
    systems = [
        cell_system(kind, s.W, s.R, s.b, getattr(s, "b_r", torch.zeros_like(s.b)), s.x[0], name=title, held=said)
        for s in here.phases
    ]
    return replace(in_turn(systems), model=model.model_name, weights_hash=model.weights_hash())


def recurrent_layers(model: Any) -> list[int]:
    """The layers of `model` that carry something on: those with a mixer that has a memory."""
    names = [n for n in model.mixers if n.endswith(".mixer") and model.mixers[n].family.name != "identity"]
    return [int(n.split(".")[1]) for n in names]


def recurrent_layer(model: Any, layer: int | None) -> int:
    """`layer`, or the only one there is. Raises ValueError where there is none, several, or not that one."""
    have = recurrent_layers(model)
    if not have:
        raise ValueError(
            f"{model.model_name} has no recurrent layer, so no carry stands still under a held token; depth can be its "
            "time: depth_orbit applies one of its blocks again and again, layer_exponents follows its own depth"
        )
    if layer is None and len(have) > 1:
        raise ValueError(f"{model.model_name} has recurrent layers {have}; say which one")
    layer = have[0] if layer is None else layer
    if layer not in have:
        raise ValueError(f"layer {layer} of {model.model_name} was asked for; it has recurrent layers {have}")
    return layer


def settled_input(model: Any, held: Any, name: str) -> Tensor:
    """What the mixer called `name` reads at each token of a turn [turn, d_model], float64, with all below it at rest.

    Raises ValueError if a layer below has no fixed point.
    """
    inputs, state = as_inputs(model, held), model.init_state(1)
    for _ in _settled(model, inputs, state, name):
        pass
    return _reads(model, inputs, state, name).double()


def settled_layers(model: Any, held: Any) -> tuple[list[tuple[str, HeldLayer, Any, Affine | None]], Any]:
    """(every mixer from the bottom up: name, what it is held under, memory at rest, closed form; the `ModelState` with
    all of them at rest). Raises ValueError as `settled_input`."""
    inputs, state = as_inputs(model, held), model.init_state(1)
    return list(_settled(model, inputs, state, None)), state


def _settled(
    model: Any, inputs: Tensor, state: Any, stop: str | None
) -> Iterator[tuple[str, HeldLayer, Any, Affine | None]]:
    """Bring the carries of `state` to rest in the order of a pass, up to the mixer `stop` (None: all of them)."""
    _check_attention(model, inputs, stop)
    drifting = ""
    for name in _order(model, inputs):
        if name == stop:
            break
        if drifting:
            raise NoRest(
                f"{drifting} drifts without end under the held input, so {name} has no settled input; look at "
                f"{drifting}"
            )
        here = hold(model.mixers[name], _reads(model, inputs, state, name))
        memory, affine = settle(here)
        drifting = name if affine is not None and "none" in affine.status else ""
        old = state.carries[name]
        new = {**memory._asdict(), **here.windows}
        state.carries[name] = type(old)(**{f: new[f].to(getattr(old, f)) for f in old._fields})
        yield name, here, memory, affine
    if drifting and stop is not None:
        raise NoRest(
            f"{drifting} drifts without end under the held input, so {stop} has no settled input; look at {drifting}"
        )


def _check_attention(model: Any, inputs: Tensor, stop: str | None) -> None:
    """Attention over one value repeated answers as over one; over several it depends on how many have passed."""
    below = [
        name for name in model.carriers if name not in model.mixers and (stop is None or _block(name) < _block(stop))
    ]
    if inputs.shape[1] > 1 and below:
        raise ValueError(
            f"a turn of {inputs.shape[1]} tokens was asked for, and {below[0]} of {model.model_name} attends over all "
            "that have passed, so that nothing above it comes to rest; hold one token, or look at a layer below it"
        )


def _block(name: str) -> int:
    return int(name.split(".")[1])


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
    """What mixer `name` reads at each token of a turn that starts from `state`: [turn, d_model]."""
    caught: list[Tensor] = []
    handle = model.mixers[name].register_forward_pre_hook(lambda _m, args: caught.append(args[0].detach()[0]))
    try:
        with torch.no_grad():
            model.forward(inputs, state, return_type=None)
    finally:
        handle.remove()
    return caught[0]


def as_inputs(model: Any, held: Any) -> Tensor:
    """One turn of what is held: token ids [1, turn] from an id, a text or a list of ids; real numbers
    [1, turn, d_input] from [d_input] (None: 0) or [turn, d_input] where the model reads those. Raises ValueError for
    anything else."""
    d_input = getattr(getattr(model, "config", None), "d_input", 0)
    like = next(model.parameters())
    if d_input:
        x = torch.zeros(d_input) if held is None else torch.as_tensor(held)
        x = x[None] if x.ndim == 1 else x
        if x.ndim != 2 or x.shape[1] != d_input or not len(x) or not bool(x.isfinite().all()):
            raise ValueError(
                f"{model.model_name} reads {d_input} finite numbers a step; shape {tuple(x.shape)} was given"
            )
        return x.detach().to(like)[None]
    if isinstance(held, str):
        return model.tokenize(held)[0].to(like.device)
    ids = [held] if isinstance(held, int) else held
    if not isinstance(ids, list | tuple) or not ids or not all(isinstance(i, int) for i in ids):
        raise ValueError(
            f"{held!r} was given to hold; {model.model_name} reads tokens: give an id, a list of ids that come in "
            "turn, or their text"
        )
    return torch.tensor([list(ids)], device=like.device)


def in_words(model: Any, held: Any) -> str:
    """What is held, for a title: the tokens and their ids, or the numbers."""
    x = as_inputs(model, held)[0]
    if x.is_floating_point():
        rows = [[round(v, 4) for v in row] for row in x.tolist()]
        return f"input {rows[0]}" if len(rows) == 1 else f"inputs {rows} in turn"
    ids = x.tolist()
    text = f" {model.tokenizer.decode(ids)!r}" if getattr(model, "tokenizer", None) is not None else ""
    return f"token {ids[0]}{text}" if len(ids) == 1 else f"tokens {ids}{text} in turn"
