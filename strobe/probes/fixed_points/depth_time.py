"""`depth_orbit`: a block applied to its own output again and again: does each token settle, circle, slide or wander?

For blocks that are applied many times by design (Universal Transformers, Dehghani et al. 2018; Huginn, Geiping et al.
2025, who show such paths and name them without a definition), and, as a thought experiment, for any block of a model.
The definitions are ours. With s_t the stream of a token, over the last half of the steps:

    fixed point      a step is below 1e-6 of the first one (1e-5 in single precision), and steps shrink: node, spiral or
                     alternating by how one step lies to the last
    orbit            it returns after k >= 2 steps to within 1e-3 of the diameter of its path
    slider           net displacement is over 0.9 of the path length
    quasi-periodic, chaotic     none of these, and the largest Lyapunov exponent is below or above .005 nats a step
    undecided        still shrinking when the steps were over, or not finite

The exponent is Benettin et al.'s (1980) of two neighbours brought back together after every step; only the token itself
is disturbed, which in a causal model is its own part of the spectrum.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from strobe.core.provenance import Provenance
from strobe.models.fingerprint import weights_hash
from strobe.probes.fixed_points.block_passes import apply_block, n_blocks, streams
from strobe.probes.fixed_points.depth_orbit_result import DepthOrbit
from strobe.probes.fixed_points.depth_path import DepthPath
from strobe.probes.fixed_points.held import as_inputs
from strobe.probes.fixed_points.system import System
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

_FIXED, _RETURN, _STRAIGHT, _CHAOS = 1e-6, 1e-3, 0.9, 0.005
# Steps below this share of the first one may be rounding: in double precision (True) and in single.
_ROUNDING = {True: 1e-9, False: 1e-5}
# Steps from which on something can be said of the long run.
_LEAST = 40
# Steps of the last quarter over those of the quarter before, below which the path is still on its way to rest.
_SHRINKS = 0.3


@torch.no_grad()
def depth_orbit(
    source: Any,
    start: Any,
    *,
    layers: tuple[int, int] | int | None = None,
    steps: int = 400,
    separation: float | None = None,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    partial: Callable[[DepthOrbit], None] | None = None,
) -> DepthOrbit:
    """Apply a map `steps` times from `start` and say what each token does.

    `source`: a `System`, with `start` [size]; a block of your own, with `start` [tokens, d]: a module, or a function of
    streams [n, tokens, d] to the same, row by row (of a depth-recurrent model that reads its input e at every depth,
    ``lambda s: block(e, s)``); or a loaded model, with `start` a text or ids, of which block `layers` (or the blocks
    from the first to the second of a pair, None: all of them) is applied to its own output, from the stream it reads
    there. `dtype`: of the streams that a block of your own is given; None for that of a module's weights, and double
    precision for a function. `separation`: of the neighbours, relative to the stream; None for 1e-7, and 1e-3 in
    single precision. Where `progress` raises, `partial` is given what the steps made by then say, from 40 on. Raises
    ValueError for fewer than 40 steps, blocks the model does not have, and a block that returns another shape or
    answers the same streams in two ways.
    """
    if steps < _LEAST:
        raise ValueError(f"{steps} steps were asked for; what happens in the long run takes {_LEAST} or more")
    step, first, units, name, provenance, fine = _taken(source, start, layers, steps, dtype, seed)
    apart = separation if separation is not None else (1e-7 if fine else 1e-3)
    order = torch.randperm(first.shape[-1], generator=torch.Generator().manual_seed(seed))
    own, other = DepthPath(step, first, apart), DepthPath(step, first[:, order], apart)

    def result() -> DepthOrbit:
        return _orbit(own, other, units, name, _ROUNDING[fine], provenance)

    tick = keeping(progress, partial, lambda: result() if len(own.logs) >= _LEAST else None)
    # Side by side: of a run that is cut short, the control is there as far as it came.
    for t in range(steps):
        own.advance()
        other.advance()
        tick(t + 1, steps, "applying the block, and from another start")
    return result()


def _orbit(
    own: DepthPath, other: DepthPath, units: list[str], name: str, floor: float, provenance: Provenance
) -> DepthOrbit:
    """What the two paths say as far as they have come."""
    (paths, exponents), (control, other_exponents) = own.found(), other.found()
    found = [_classified(paths[:, u], float(exponents[u]), floor) for u in range(len(units))]
    null = [_classified(control[:, u], float(other_exponents[u]), floor) for u in range(len(units))]
    flat = np.nan_to_num(paths.reshape(-1, paths.shape[-1]))
    _, s, v = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    axes, share = np.zeros((3, flat.shape[1])), np.zeros(3)
    k = min(3, len(v))
    axes[:k], share[:k] = v[:k], (s**2 / max(float((s**2).sum()), 1e-300))[:k]
    return DepthOrbit(
        system=name,
        units=units,
        kinds=[one["kind"] for one in found],
        periods=np.array([one["period"] for one in found], dtype=np.int64),
        speeds=np.stack([one["speeds"] for one in found], 1),
        rates=np.array([one["rate"] for one in found]),
        recurrences=np.array([one["recurrence"] for one in found]),
        straightness=np.array([one["straightness"] for one in found]),
        exponents=exponents,
        paths=(paths - flat.mean(0)) @ axes.T,
        shares=share,
        control=[one["kind"] for one in null],
        provenance=provenance,
    )


def _taken(source: Any, start: Any, layers: Any, steps: int, dtype: torch.dtype | None, seed: int) -> Any:
    """(map of [n, units, d], start [units, d], units' names, name, provenance, whether double precision)."""
    settings = {"steps": steps, "layers": layers}
    control = "the same map from the first stream with its entries permuted"
    if isinstance(source, System) or not hasattr(source, "hook_dict"):
        return _own(source, start, dtype, Provenance(model="", seed=seed, settings=settings, control=control))
    if dtype is not None:
        raise ValueError(f"{source.model_name} was loaded in its own precision; leave out dtype, or load it in {dtype}")
    tokens, n = as_inputs(source, start), n_blocks(source)
    low, high = (0, n - 1) if layers is None else (layers, layers) if isinstance(layers, int) else layers
    if not 0 <= low <= high < n:
        raise ValueError(f"blocks {low} to {high} of {source.model_name} were asked for; it has 0 to {n - 1}")
    before = streams(source, tokens)[low]

    def block_step(x: Tensor) -> Tensor:
        rows, y = tokens.expand(len(x), *tokens.shape[1:]), x.to(before)
        for block in range(low, high + 1):
            y = apply_block(source, rows, block, y)
        return y.to(x)

    ids = None if tokens.is_floating_point() else tokens[0].tolist()
    decode = getattr(getattr(source, "tokenizer", None), "decode", None)
    units = (
        [decode([i]) if decode is not None else str(i) for i in ids] if ids else [str(i) for i in range(len(before[0]))]
    )
    which = f"block {low}" if low == high else f"blocks {low} to {high}"
    provenance = provenance_of(source, seed=seed, settings=settings | {"tokens": tokens[0].tolist()}, control=control)
    fine = before.dtype == torch.float64
    return block_step, before[0].double(), units, f"{which} of {source.model_name}", provenance, fine


def _own(source: Any, start: Any, dtype: torch.dtype | None, provenance: Provenance) -> Any:
    """The same of a `System`, a module or a function; checked on the start."""
    first = torch.as_tensor(start).detach().to(device="cpu", dtype=torch.float64, copy=True)
    block: Any = source
    system = source if isinstance(source, System) else None
    first = first.view(1, -1) if system is not None else first
    if first.ndim != 2 or (system is not None and first.shape[1] != system.size):
        raise ValueError(f"a start of shape {tuple(torch.as_tensor(start).shape)} was given; give [tokens, d]")
    name, weights, given = getattr(source, "__name__", "function"), None, dtype or torch.float64
    if system is not None:
        name, weights, given = system.name, system.weights_hash, torch.float64
    elif isinstance(source, nn.Module):
        own = next((p.dtype for p in source.parameters()), torch.float64)
        name, weights, given = type(source).__name__, weights_hash(source), dtype or own

    def step(x: Tensor) -> Tensor:
        return system.step(x[:, 0])[:, None] if system is not None else block(x.to(given)).to(x.dtype)

    # Three rows, as the path and its neighbours are given together.
    rows = first.expand(3, *first.shape).clone()
    after, again = step(rows.clone()), step(rows.clone())
    if after.shape != rows.shape:
        raise ValueError(
            f"{name} was given streams of shape {tuple(rows.shape)} and returned {tuple(after.shape)}; a block that is "
            "applied to its own output has to return the shape it was given"
        )
    if not torch.equal(after.nan_to_num(), again.nan_to_num()):
        raise ValueError(
            f"{name} answered the same streams with two different results, so its path says nothing; take the noise "
            "out of it (dropout: call .eval())"
        )
    units = [str(i) for i in range(len(first))]
    return step, first, units, name, replace(provenance, model=name, weights_hash=weights), given == torch.float64


def _classified(path: np.ndarray, exponent: float, floor: float) -> dict[str, Any]:
    """What the path [time, d] of one unit does; see the module. `floor`: see `_ROUNDING`."""
    moves = np.diff(path, axis=0)
    sizes = np.linalg.norm(moves, axis=1)
    first = sizes[0] if sizes[0] > 0 else 1.0
    late, late_moves = path[len(path) // 2 :], moves[len(moves) // 2 :]
    length = np.linalg.norm(late_moves, axis=1).sum()
    straightness = float(np.linalg.norm(late[-1] - late[0]) / length) if length > 0 else 0.0
    rate, kind_of_rest = _approach(moves, sizes, first, floor)
    period, recurrence = _period(late)
    answer = {"period": 0, "speeds": sizes / first, "rate": rate, "recurrence": recurrence}
    answer["straightness"] = straightness
    if not np.isfinite(path).all():
        return answer | {"kind": "undecided"}
    if sizes[-1] <= max(_FIXED, floor) * first:
        return answer | {"kind": f"fixed point: {kind_of_rest}"}
    if straightness > _STRAIGHT:
        return answer | {"kind": "slider"}
    quarter = len(sizes) // 4
    if np.median(sizes[-quarter:]) < _SHRINKS * np.median(sizes[-2 * quarter : -quarter]):
        return answer | {"kind": "undecided"}
    if period:
        return answer | {"kind": "orbit", "period": period}
    return answer | {"kind": "chaotic" if exponent > _CHAOS else "quasi-periodic"}


def _approach(moves: np.ndarray, sizes: np.ndarray, first: float, floor: float) -> tuple[float, str]:
    """(the factor by which a step shrinks, node, spiral or alternating), over the last steps above rounding."""
    usable = np.nonzero(sizes > floor * first)[0]
    if len(usable) < 3:
        return 0.0, "node"
    last = usable[-1]
    begin = max(last - 20, last // 2)
    rate = float((sizes[last] / sizes[begin]) ** (1 / max(last - begin, 1)))
    pairs = [(moves[t], moves[t + 1]) for t in range(begin, last)]
    cosines = [float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300)) for a, b in pairs]
    middle = float(np.mean(cosines))
    return rate, "node" if middle > 0.99 else "alternating" if middle < -0.99 else "spiral"


def _period(late: np.ndarray) -> tuple[int, float]:
    """(the smallest k >= 2 after which the path is back where it was, or 0; the smallest such distance / diameter)."""
    centre = late - late.mean(0)
    diameter = 2 * float(np.linalg.norm(centre, axis=1).max())
    if not diameter > 0:
        return 0, 0.0
    back = [
        float(np.linalg.norm(late[k:] - late[:-k], axis=1).max()) / diameter for k in range(2, max(3, len(late) // 2))
    ]
    good = [k for k, value in enumerate(back, 2) if value < _RETURN]
    return (good[0] if good else 0), min(back)
