"""Systems from a user's own `torch.nn.RNN`, `GRU`, `LSTM` and their cells, under a held input.

Weights are copied to float64; the module is neither changed nor called. A stack of layers is one system: its carry is
the layers' carries one after the other, and its restated problem feeds each layer the h of the one below, which at a
fixed point is what it reads.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from strobe.models.fingerprint import weights_hash
from strobe.probes.fixed_points import cells
from strobe.probes.fixed_points.system import Roots, System, differentiate

_KINDS = {
    nn.RNN: "elman",
    nn.RNNCell: "elman",
    nn.GRU: "gru",
    nn.GRUCell: "gru",
    nn.LSTM: "lstm",
    nn.LSTMCell: "lstm",
}


class _Layer(NamedTuple):
    W: Tensor
    R: Tensor
    b: Tensor
    b_r: Tensor


def from_module(module: nn.Module, held: Any = None) -> System:
    """The system of a `torch.nn` RNN, GRU, LSTM or one of their cells under the input `held` [input_size] (None: 0).

    Raises TypeError for another module, and ValueError for a bidirectional module or one with projections (give
    `from_function` a step for those), or a held input of another size.
    """
    kind = next((k for cls, k in _KINDS.items() if isinstance(module, cls)), None)
    if kind is None:
        raise TypeError(
            f"a {type(module).__name__} was given; RNN, GRU, LSTM and their cells are taken as they are, and any other "
            "recurrence as a function of its carry (from_function)"
        )
    if getattr(module, "bidirectional", False) or getattr(module, "proj_size", 0):
        raise ValueError(
            f"this {type(module).__name__} is bidirectional or has projections, which no carry runs through in one "
            "direction; give from_function a step of the part you mean"
        )
    layers, name = _layers(module), type(module).__name__
    x = _held(held, layers[0].W.shape[1])
    said = "input 0" if held is None else f"input {[round(v, 4) for v in x.tolist()[:8]]}"
    options = {"nonlinearity": module.nonlinearity} if kind == "elman" else {}
    if len(layers) > 1:
        system = _stack(kind, layers, x, options, f"{name} of {len(layers)} layers", said)
    else:
        system = cell_system(
            kind, layers[0].W, layers[0].R, layers[0].b, layers[0].b_r, x, name=name, held=said, **options
        )
    return replace(system, weights_hash=weights_hash(module))


def cell_system(
    kind: str, W: Tensor, R: Tensor, b: Tensor, b_r: Tensor, x: Tensor, *, name: str, held: str, **options: Any
) -> System:
    """One cell of `kind` ("elman", "gru", "lstm", "slstm") under the input `x`; all float64.

    Weights as torch keeps them, but for an sLSTM's R, which is block-diagonal by head (`strobe.kernels.rnn.blocks`).
    """
    drive = F.linear(x, W, b)
    if kind == "gru":
        return cells.gru(R, drive, b_r, name=name, held=held)
    make = {"elman": cells.elman, "lstm": cells.lstm, "slstm": cells.slstm}[kind]
    return make(R, drive + b_r, name=name, held=held, **options)


def _stack(kind: str, layers: Sequence[_Layer], x: Tensor, options: dict, name: str, held: str) -> System:
    hidden, per = layers[0].R.shape[1], 2 if kind == "lstm" else 1
    size, width = per * hidden * len(layers), per * hidden

    def one(layer: _Layer, below: Tensor) -> System:
        return cell_system(kind, *layer, below, name=name, held=held, **options)

    def step_one(x: Tensor) -> Tensor:
        """[size] -> [size]; cells are built for one input each, so a carry at a time under vmap."""
        below, after = start, []
        for layer, carry in zip(layers, x.split(width), strict=True):
            after.append(one(layer, below).step(carry[None])[0])
            below = after[-1][:hidden]
        return torch.cat(after)

    def residual_one(y: Tensor) -> Tensor:
        below, parts = start, []
        for layer, h in zip(layers, y.split(hidden), strict=True):
            parts.append(one(layer, below).roots.residual(h[None])[0])
            below = h
        return torch.cat(parts)

    def expand_one(y: Tensor) -> Tensor:
        below, parts = start, []
        for layer, h in zip(layers, y.split(hidden), strict=True):
            parts.append(one(layer, below).roots.expand(h[None])[0])
            below = h
        return torch.cat(parts)

    start = x
    step, residual = torch.func.vmap(step_one), torch.func.vmap(residual_one)
    slope = differentiate(residual)
    roots = Roots(
        residual=residual,
        linearise=lambda y: (residual(y), slope(y)),
        reduce=lambda c: c.unflatten(-1, (len(layers), width))[..., :hidden].flatten(-2),
        expand=torch.func.vmap(expand_one),
    )
    fields = tuple(
        (f"layer {i} {f}", (hidden,)) for i in range(len(layers)) for f in (("h", "c") if per == 2 else ("h",))
    )

    def shuffled(seed: int) -> System:
        gates = layers[0].R.shape[0] // hidden
        mixed = [layer._replace(R=cells.permuted(layer.R, gates, seed + i)) for i, layer in enumerate(layers)]
        return _stack(kind, mixed, x, options, name, held)

    return System(
        name=name,
        held=held,
        size=size,
        step=step,
        jacobian=differentiate(step),
        roots=roots,
        fields=fields,
        box=_stack_box(kind, layers, x, options),
        shuffled=shuffled,
    )


def _stack_box(kind: str, layers: Sequence[_Layer], x: Tensor, options: dict) -> Tensor | None:
    if options.get("nonlinearity") == "relu":
        return None
    hidden, parts = layers[0].R.shape[1], []
    for i, layer in enumerate(layers):
        if kind != "lstm":
            parts.append(torch.ones(hidden, dtype=x.dtype))
            continue
        # Above the first layer the input is an h, so at most 1 in magnitude.
        fed = F.linear(x, layer.W) if i == 0 else layer.W.abs().sum(1)
        parts.append(cells.lstm_box(layer.R.abs().sum(1) + layer.b + layer.b_r + fed, hidden))
    return torch.cat(parts)


def _layers(module: Any) -> list[_Layer]:
    def copy(name: str, like: Tensor) -> Tensor:
        given = getattr(module, name, None)
        return torch.zeros(len(like), dtype=torch.float64) if given is None else _double(given)

    suffixes = [f"_l{i}" for i in range(module.num_layers)] if isinstance(module, nn.RNNBase) else [""]
    layers = []
    for s in suffixes:
        W, R = _double(getattr(module, f"weight_ih{s}")), _double(getattr(module, f"weight_hh{s}"))
        layers.append(_Layer(W, R, copy(f"bias_ih{s}", R), copy(f"bias_hh{s}", R)))
    return layers


def _double(x: Tensor) -> Tensor:
    return x.detach().to(device="cpu", dtype=torch.float64, copy=True)


def _held(held: Any, size: int) -> Tensor:
    if held is None:
        return torch.zeros(size, dtype=torch.float64)
    x = _double(torch.as_tensor(held))
    if x.shape != (size,) or not bool(x.isfinite().all()):
        raise ValueError(f"a held input of shape {tuple(x.shape)} was given; it has to be {size} finite numbers")
    return x
