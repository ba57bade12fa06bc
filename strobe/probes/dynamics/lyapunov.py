"""`lyapunov_spectrum`: how fast nearby carries part or meet, direction by direction, along the orbits of a map.

Benettin et al. 1980 and Shimada & Nagashima 1979: carry an orthonormal frame Q along the orbit, Q R = J(x_t) Q, and
average ln |diag R|. All in float64. The sum of all exponents has to be the mean of ln |det J| along the same orbit,
which is worked out apart and kept beside them.

The control is ours: the Jacobians of states met on the same orbit, drawn in random order. They stretch as much (the sum
is the same), but not where the last one turned the frame to; what is left of the spectrum does not depend on the order.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from strobe.core.provenance import Provenance
from strobe.probes.dynamics.lyapunov_result import LyapunovSpectrum
from strobe.probes.fixed_points.system import System, as_carries

Tick = Callable[[int, int, str], None]

_CONTROL = "Jacobians of states met on the same orbits, in random order"
_LOOKS = 50
# Steps between two that a watcher is told of.
_TOLD = 256


class Growth(NamedTuple):
    """Sums over the steps that were counted: `stretch` [n, exponents] of ln |diag R|, `volume` [n] of ln |det J|;
    `curve` [looks, exponents] the running mean over n, at the step counts `at` [looks]."""

    stretch: Tensor
    volume: Tensor
    curve: Tensor
    at: list[int]


def lyapunov_spectrum(
    source: System | nn.Module,
    *,
    held: Any = None,
    layer: int | None = None,
    steps: int = 10_000,
    transient: int = 500,
    initial: Any = None,
    n_initial: int = 1,
    n_exponents: int | None = None,
    dt: float | int = 1.0,
    control: bool = True,
    seed: int = 0,
    progress: Tick | None = None,
) -> LyapunovSpectrum:
    """Lyapunov exponents of `source` under a held input: a `System`, a `torch.nn` cell, or a loaded model's layer.

    `steps` are counted after `transient` that are not, on each of `n_initial` orbits (or from `initial` [n, size]).
    `n_exponents`: the largest so many (None: all). `dt`: time units per step, so that exponents are per unit of time.
    For a layer driven by a text see `driven_lyapunov_spectrum`.

    Raises ValueError for an orbit that leaves the finite numbers, with how many do: such a map has no exponents there.
    """
    if steps < 2 or transient < 0 or dt <= 0:
        raise ValueError(f"{steps} steps of {dt} after {transient} were asked for; give 2 or more, above 0, 0 or more")
    system = _system_of(source, held, layer)
    kept = system.size if n_exponents is None else n_exponents
    if not 1 <= kept <= system.size:
        raise ValueError(f"{kept} exponents were asked for; {system.name} has {system.size}")
    x = _start(system, initial, n_initial, seed)
    tick = progress or (lambda done, total, what: None)
    with torch.no_grad():
        # The frame turns into place over the second half of the transient, which is not counted.
        turning = transient // 2
        for _ in range(transient - turning):
            x = system.step(x)
        orbit = _orbit(system, x, turning + steps)
        found = growth((system.jacobian(x) for x in orbit), steps, kept, tick, turning)
        other = None
        if control:
            order = torch.randperm(turning + steps, generator=torch.Generator().manual_seed(seed)).tolist()
            other = growth((system.jacobian(orbit[t]) for t in order), steps, kept, tick, turning)
    return result_of(
        found,
        other,
        steps * float(dt),
        system=system.name,
        held=system.held or "no input",
        dt=float(dt),
        provenance=Provenance(
            model=system.model or system.name,
            weights_hash=system.weights_hash,
            seed=seed,
            settings={
                "held": system.held,
                "steps": steps,
                "transient": transient,
                "orbits": len(x),
                "exponents": kept,
                "dt": float(dt),
                "dtype": "float64",
            },
            control=_CONTROL if control else None,
        ),
    )


def growth(jacobians: Iterable[Tensor], steps: int, exponents: int, tick: Tick, turning: int = 0) -> Growth:
    """Carry a frame through Jacobians [n, size, size] and count `steps` of them, after `turning` that only turn it."""
    found: Growth | None = None
    for t, so_far in growing(jacobians, steps, exponents, turning):
        found = so_far
        tick(t, steps, "following the orbits")
    assert found is not None
    return found


def growing(jacobians: Iterable[Tensor], steps: int, exponents: int, turning: int = 0) -> Iterator[tuple[int, Growth]]:
    """As `growth`, every 256 steps and at the end: how many were counted, and what they have come to."""
    frame, stretch, volume = None, None, None
    curve, at = [], []
    looks = set(np.unique(np.geomspace(1, steps, _LOOKS).astype(int)).tolist())
    for t, J in enumerate(jacobians, 1 - turning):
        if frame is None or stretch is None:
            frame = torch.eye(J.shape[-1], dtype=J.dtype)[:, :exponents].expand(*J.shape[:-1], exponents)
            stretch, volume = J.new_zeros(*J.shape[:-2], exponents), J.new_zeros(J.shape[:-2])
        frame, R = torch.linalg.qr(J @ frame)
        if t < 1:
            continue
        grown = R.diagonal(dim1=-2, dim2=-1).abs().log()
        stretch = stretch + grown
        # With a full frame |det R| = |det J|, so a second factorisation is only needed where some are left out.
        volume = volume + (grown.sum(-1) if exponents == J.shape[-1] else torch.linalg.slogdet(J)[1])
        if t in looks:
            curve.append(stretch.flatten(0, -2).mean(0) / t)
            at.append(t)
        if t % _TOLD == 0 or t == steps:
            yield t, Growth(stretch, volume, torch.stack(curve), list(at))


def result_of(found: Growth, other: Growth | None, time: float, *, dt: float, **fields: Any) -> LyapunovSpectrum:
    """The result of `found` over `time` units, its exponents largest first."""
    exponents = (found.stretch / time).flatten(0, -2).numpy()
    order = np.argsort(-exponents.mean(0), kind="stable")
    controlled = np.empty(0) if other is None else np.sort((other.stretch / time).flatten(0, -2).mean(0).numpy())[::-1]
    return LyapunovSpectrum(
        exponents=exponents[:, order],
        volume=(found.volume / time).flatten().numpy(),
        curve=(found.curve.numpy() / dt)[:, order],
        at=np.array(found.at, dtype=np.int64),
        dt=dt,
        control=controlled.copy(),
        **fields,
    )


def _orbit(system: System, x: Tensor, steps: int) -> Tensor:
    orbit = x.new_empty(steps, *x.shape)
    for t in range(steps):
        orbit[t] = x
        x = system.step(x)
    away = ~orbit.isfinite().all(-1).all(0)
    if bool(away.any()):
        raise ValueError(
            f"the exponents of {system.name} were asked for, but {int(away.sum())} of {len(away)} orbits leave the "
            "finite numbers; start them inside the basin of an attractor"
        )
    return orbit


def _start(system: System, initial: Any, n: int, seed: int) -> Float64[Tensor, "n size"]:
    if initial is not None:
        return as_carries(initial, system.size, "initial carries")
    from strobe.probes.fixed_points.candidates import random_carries

    return random_carries(system, n, seed)


def _system_of(source: Any, held: Any, layer: int | None) -> System:
    if isinstance(source, System):
        if held is not None or layer is not None:
            raise ValueError("a System already has its held input; leave out held and layer")
        return source
    if hasattr(source, "mixers"):
        from strobe.probes.fixed_points.held import layer_system

        return layer_system(source, held, layer)
    from strobe.probes.fixed_points.modules import from_module

    return from_module(source, held)
