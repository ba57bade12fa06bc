"""One interface for every recurrence under a held input: carry in, carry out, as flat float64 vectors.

A `System` is what is left of a recurrent layer when its input stops changing: an autonomous map F of its carry. Its
fixed points, x = F(x), are what the layer would remember for ever.

`Roots` restates x = F(x) so that a root finder cannot be fooled. A gated cell with a saturated update gate moves its
carry by less than rounding, h' = z h + (1 - z) n with z close to 1, wherever it is; dividing the gate out, n(h) - h,
keeps the roots and loses those ghosts (`strobe.probes.fixed_points.cells`).

Letters: n carries at a time, each of `size` numbers; m unknowns of the restated problem.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

Carries = Float64[Tensor, "n size"]
Jacobians = Float64[Tensor, "n size size"]


@dataclass(frozen=True, kw_only=True)
class Roots:
    """A problem with the same roots as F(x) - x, in unknowns y [n, m].

    `residual(y)` [n, m] is zero exactly where `expand(y)` [n, size] is a fixed point; `linearise(y)` is the residual
    and its Jacobian [n, m, m]; `reduce(x)` [n, m] is where to start from a carry x.
    """

    residual: Callable[[Tensor], Tensor]
    linearise: Callable[[Tensor], tuple[Tensor, Tensor]]
    reduce: Callable[[Tensor], Tensor] = lambda x: x
    expand: Callable[[Tensor], Tensor] = lambda y: y


@dataclass(frozen=True, kw_only=True)
class System:
    """A recurrence under a held input.

    `step` [n, size] -> [n, size], float64; `jacobian` [n, size] -> [n, size, size], entry (i, j) is dF_i / dx_j.
    `box` [size]: half-widths of a box around 0 that F maps into itself, None where none is known; with it the index
    sum of the fixed points is known to be 1. `fields`: name and shape of each part of the carry, in order.
    `shuffled(seed)`: the same recurrence with the entries of its recurrent weights permuted, the control. `held` says
    what is held, and `model` which model it is a layer of.
    """

    name: str
    size: int
    step: Callable[[Tensor], Tensor]
    jacobian: Callable[[Tensor], Tensor]
    roots: Roots
    fields: tuple[tuple[str, tuple[int, ...]], ...]
    box: Float64[Tensor, " size"] | None = None
    shuffled: "Callable[[int], System] | None" = None
    weights_hash: str | None = None
    held: str = ""
    model: str = ""

    def speed(self, x: Carries) -> Float64[Tensor, " n"]:
        """Euclidean norm of F(x) - x: how far one step moves each carry."""
        return (self.step(x) - x).norm(dim=-1)


def from_function(
    step: Callable[[Tensor], Tensor],
    size: int,
    *,
    jacobian: Callable[[Tensor], Tensor] | None = None,
    box: Float64[Tensor, " size"] | None = None,
    name: str = "function",
) -> System:
    """A system from any map of carries [n, size], float64, to carries of the same shape, row by row.

    Without `jacobian` ([n, size] -> [n, size, size]) torch.func differentiates `step`. `box`: half-widths of a box
    around 0 that the map is known to send into itself. Raises ValueError for a step that returns another shape or
    dtype, that mixes rows, or that answers the same question in two ways.
    """
    if size < 1:
        raise ValueError(f"a carry of {size} numbers was asked for; give a size of 1 or more")
    _check_step(step, size)
    derivative = jacobian or differentiate(step)
    return System(
        name=name,
        size=size,
        step=step,
        jacobian=derivative,
        roots=displacement(step, derivative),
        fields=(("x", (size,)),),
        box=box,
    )


def differentiate(step: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The Jacobian [n, out, in] of a map [n, in] -> [n, out] that works row by row, by reverse-mode autodiff."""

    def one(x: Tensor) -> Tensor:
        return step(x[None])[0]

    def jacobian(x: Tensor) -> Tensor:
        return torch.func.vmap(torch.func.jacrev(one))(x).detach()

    return jacobian


def less_identity(jacobian: Tensor) -> Tensor:
    """J - I for a `jacobian` [n, size, size] of the caller's own, which is changed."""
    jacobian.diagonal(dim1=-2, dim2=-1).sub_(1)
    return jacobian


def displacement(step: Callable[[Tensor], Tensor], jacobian: Callable[[Tensor], Tensor]) -> Roots:
    """The problem as it is: F(x) - x, with the Jacobian J - I."""

    def linearise(x: Tensor) -> tuple[Tensor, Tensor]:
        return step(x) - x, less_identity(jacobian(x).clone())

    return Roots(residual=lambda x: step(x) - x, linearise=linearise)


def iterated(system: System, k: int) -> System:
    """F applied `k` times: its fixed points are the points of the cycles whose length divides k."""
    if k < 1:
        raise ValueError(f"a map iterated {k} times was asked for; give 1 or more")

    def step(x: Tensor) -> Tensor:
        for _ in range(k):
            x = system.step(x)
        return x

    def jacobian(x: Tensor) -> Tensor:
        total = system.jacobian(x)
        for _ in range(k - 1):
            x = system.step(x)
            total = system.jacobian(x) @ total
        return total

    name = system.name if k == 1 else f"{system.name}, {k} steps"
    return replace(system, name=name, step=step, jacobian=jacobian, roots=displacement(step, jacobian), shuffled=None)


def in_turn(systems: Sequence[System]) -> System:
    """Several systems of one carry, one step of each in the order given: a turn of inputs that comes again for ever.

    Its fixed points are the carries after a turn. The box is the smallest that holds all of theirs, which each map of a
    cell sends into itself (`strobe.probes.fixed_points.cells`).
    """
    if len(systems) == 1:
        return systems[0]
    first = systems[0]

    def step(x: Tensor) -> Tensor:
        for one in systems:
            x = one.step(x)
        return x

    def jacobian(x: Tensor) -> Tensor:
        total = first.jacobian(x)
        for before, one in pairwise(systems):
            x = before.step(x)
            total = one.jacobian(x) @ total
        return total

    boxes = [one.box for one in systems if one.box is not None]
    shuffles = [one.shuffled for one in systems if one.shuffled is not None]
    every = len(shuffles) == len(systems)
    return replace(
        first,
        step=step,
        jacobian=jacobian,
        roots=displacement(step, jacobian),
        box=torch.stack(boxes).amax(0) if len(boxes) == len(systems) else None,
        shuffled=(lambda seed: in_turn([shuffle(seed) for shuffle in shuffles])) if every else None,
    )


def as_carries(x: Any, size: int, what: str) -> Tensor:
    """`x` (array or tensor, [n, size] or [size]) as a new float64 tensor [n, size]; the caller's stays as it was.

    Raises ValueError for another size, for no row at all, and for numbers that are not finite.
    """
    carries = torch.as_tensor(x).detach().to(device="cpu", dtype=torch.float64, copy=True)
    carries = carries[None] if carries.ndim == 1 else carries
    if carries.ndim != 2 or carries.shape[1] != size or carries.shape[0] == 0:
        raise ValueError(
            f"{what} of shape {tuple(carries.shape)} were given; the system's carry has {size} numbers, so give "
            f"[n, {size}] with n of 1 or more"
        )
    bad = int((~carries.isfinite()).any(1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(carries)} {what} are NaN or infinite; leave those out")
    return carries


def _check_step(step: Callable[[Tensor], Tensor], size: int) -> None:
    # Three rows that differ, away from 0, where maps are often special.
    x = torch.linspace(-0.3, 0.7, 3 * size, dtype=torch.float64).view(3, size)
    with torch.no_grad():
        given = x.clone()
        out = step(given)
        if not isinstance(out, Tensor) or out.shape != x.shape or out.dtype != x.dtype:
            found = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(
                f"the step was given carries torch.float64 (3, {size}) and returned {found}; it has to return the same "
                "shape and dtype (a module in float32: convert it with .double(), or give the module itself)"
            )
        if not torch.equal(given, x):
            raise ValueError("the step changed the carries it was given in place; let it return new ones")
        if not torch.equal(out.nan_to_num(), step(x.clone()).nan_to_num()):
            raise ValueError(
                "the step answered the same carries with two different results, so it has no fixed points; take the "
                "noise out of it (dropout: call .eval())"
            )
        alone = step(x[:1].clone())
        if not torch.allclose(alone, out[:1], rtol=1e-9, atol=1e-12, equal_nan=True):
            raise ValueError("the step mixes the rows of a batch; it has to map each carry [size] by itself")
