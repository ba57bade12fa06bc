"""`driven_lyapunov_spectrum`: exponents of a recurrent layer along a text, whatever model it is part of.

A layer that reads is not autonomous, so these are *conditional* exponents: how two carries that read the same tokens
part or meet. All negative means that the layer forgets where it started (the echo state property). For a layer linear
in its carry the Jacobian is its transition A_t, which no carry enters: with scalar or diagonal decay the exponents are
the mean logarithms of the decays, exactly (not the logarithm of the mean), without following anything.

The control is ours: the same layer along the same tokens in random order.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strobe.core.provenance import Provenance
from strobe.probes.dynamics.lyapunov import Growth, growing, result_of
from strobe.probes.dynamics.lyapunov_result import LyapunovSpectrum
from strobe.probes.fixed_points.held import NONLINEAR, recurrent_layer
from strobe.probes.fixed_points.modules import cell_system
from strobe.probes.partial import keeping

Tick = Callable[[int, int, str], None]


def driven_lyapunov_spectrum(
    model: Any,
    inputs: Any,
    *,
    layer: int | None = None,
    transient: int = 0,
    control: bool = True,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[LyapunovSpectrum], None] | None = None,
) -> LyapunovSpectrum:
    """Conditional Lyapunov exponents, in nats per token, of one recurrent layer of `model` reading `inputs`.

    `inputs`: a text, token ids, or real inputs [time, d_input], as the model takes them, one sequence. Positions before
    `transient` are read and not counted. A layer with heads gives each head's exponents as one orbit; a head's memory
    [key, value] has each of its exponents `value` times. Where `progress` raises, which is told of every 256 positions,
    `partial` is given the exponents over those that were counted by then, and so is the control.

    Raises ValueError for a layer that is neither a tanh, GRU or LSTM cell nor linear in its carry, and where no
    position is left to count.
    """
    layer = recurrent_layer(model, layer)
    name = f"blocks.{layer}.mixer"
    tokens = _sequence(model, inputs)
    if tokens.shape[1] - transient < 2:
        raise ValueError(
            f"{tokens.shape[1]} positions were given and the first {transient} are not counted; give two more than that"
        )
    order = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(seed))
    both = [tokens, *([tokens[:, order]] if control else [])]
    settings = {"layer": layer, "positions": tokens.shape[1], "transient": transient, "dtype": "float64"}
    counted, found = 0, list[Growth]()

    def result() -> LyapunovSpectrum:
        return result_of(
            found[0],
            found[1] if control else None,
            float(counted),
            dt=1.0,
            system=f"layer {layer} ({model.mixers[name].family.name}) of {model.model_name}",
            held=f"driven by {counted} positions",
            provenance=Provenance(
                model=model.model_name,
                weights_hash=model.weights_hash(),
                seed=seed,
                settings=settings | {"counted": counted},
                control="the same positions in random order" if control else None,
            ),
        )

    tick = keeping(progress, partial, result)
    # Side by side: of a run that is cut short, the control is there as far as it came.
    for steps in zip(*(_along(model, name, x, transient) for x in both), strict=True):
        counted, found = steps[0][0], [growth for _, growth in steps]
        tick(counted, tokens.shape[1] - transient, "following the orbits")
    return result()


def _sequence(model: Any, inputs: Any) -> Tensor:
    if isinstance(inputs, str):
        return model.tokenize(inputs)[0]
    given = torch.as_tensor(np.asarray(inputs) if not isinstance(inputs, Tensor) else inputs)
    axes = 2 if getattr(getattr(model, "config", None), "d_input", 0) else 1
    if given.ndim == axes:
        given = given[None]
    if given.ndim != axes + 1 or len(given) != 1:
        wanted = "[time, d_input]" if axes == 2 else "[time]"
        raise ValueError(f"inputs of shape {tuple(given.shape)} were given; give one sequence, {wanted}")
    return given.float() if axes == 2 else given


@torch.no_grad()
def layer_jacobians(model: Any, inputs: Any, layer: int | None = None) -> Iterator[Tensor]:
    """The Jacobian of the layer's carry at each position, [heads or 1, size, size], float64: for a layer linear in its
    carry its transition A_t (a diagonal one as a diagonal matrix a head, entries that are shared counted once).

    Raises as `driven_lyapunov_spectrum`.
    """
    name = f"blocks.{recurrent_layer(model, layer)}.mixer"
    signals, mixer = _signals(model, name, _sequence(model, inputs))
    if mixer.family.name in NONLINEAR:
        yield from _cell_jacobians(mixer.family, signals)
        return
    step = _transition(mixer, signals, name)
    if step.left is None:
        decay = step.decay[0]
        yield from torch.diag_embed(decay.flatten(2) if decay.ndim > 2 else decay[:, None])
    else:
        yield from step.operator(step.left.shape[-2])[0]


@torch.no_grad()
def _along(model: Any, name: str, tokens: Tensor, transient: int) -> Iterator[tuple[int, Growth]]:
    signals, mixer = _signals(model, name, tokens)
    kind, counted = mixer.family.name, tokens.shape[1] - transient
    if kind in NONLINEAR:
        jacobians = itertools.islice(_cell_jacobians(mixer.family, signals), transient, None)
        yield from growing(jacobians, counted, _empty(mixer.family, signals).shape[1])
        return
    step = _transition(mixer, signals, name)
    if step.left is None:
        yield counted, _diagonal(step.decay[0, transient:])
        return
    key = step.left.shape[-2]
    yield from growing(iter(step.operator(key)[0, transient:]), counted, key)


def _transition(mixer: Any, signals: Any, name: str) -> Any:
    if mixer.family.transition is None:
        raise ValueError(
            f"Jacobians of {name} ({mixer.family.name}) were asked for; its carry is kept relative to a running "
            f"maximum, "
            "which is no linear map of it: look at the decays of its held fixed point instead"
        )
    return mixer.family.transition(signals)


def _signals(model: Any, name: str, tokens: Tensor) -> tuple[Any, Any]:
    """The layer's signals [1, time, ...] in float64, from what it reads in the model's own run."""
    import copy

    caught: list[Tensor] = []
    handle = model.mixers[name].register_forward_pre_hook(lambda _m, args: caught.append(args[0].detach()))
    try:
        model.forward(tokens, return_type=None)
    finally:
        handle.remove()
    mixer = copy.deepcopy(model.mixers[name]).to(device="cpu", dtype=torch.float64).requires_grad_(False)
    mixer.run = None
    start = mixer.init_carry(1, torch.float64, torch.device("cpu"))
    signals, _ = mixer.project(caught[0].cpu().double(), start, None)
    return mixer.inputs(signals), mixer


def _empty(family: Any, s: Any) -> Tensor:
    """The carry before the first token, flat: [1, size]."""
    return torch.cat(list(family.init_carry(s)), -1)


def _cell_jacobians(family: Any, s: Any) -> Iterator[Tensor]:
    """The cell's Jacobian [1, size, size] at each carry it comes to from an empty one."""
    carry = _empty(family, s)
    b_r = getattr(s, "b_r", torch.zeros_like(s.b))
    for x in s.x[0]:
        at = cell_system(family.name, s.W, s.R, s.b, b_r, x, name=family.name, held="")
        yield at.jacobian(carry)
        carry = at.step(carry)


def _diagonal(decay: Tensor) -> Growth:
    """Mean log decays: decay [time, heads or channels, ...] with what is shared counted once."""
    logs = decay.abs().log().flatten(2) if decay.ndim > 2 else decay.abs().log()[:, None, :]
    total, running = logs.sum(0), logs.cumsum(0)
    at = sorted(set(np.geomspace(1, len(logs), 50).astype(int).tolist()))
    curve = torch.stack([running[t - 1].mean(0) / t for t in at])
    return Growth(total, total.sum(-1), curve, at)
