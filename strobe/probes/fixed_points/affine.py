"""Recurrences linear in their carry, under a held input: M = A M + B solved, never searched for.

With the token held, every linear mixer is one affine map of its memory, so that it has one fixed point,
M* = (I - A)^-1 B, with the spectrum of A everywhere. Where I - A is singular there is either a continuum of fixed
points (B asks for nothing along it: the solution of least norm is given) or none (the memory grows without end).

Shape letters: heads, key, value; a family without heads has its channels as heads. `n` distinct eigenvalues a head.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from strobe.kernels.linear import Transition

# Relative to the largest singular value: what float64 cannot tell from an eigenvalue of 1.
_SINGULAR = 1e-13


class Affine(NamedTuple):
    """`memory` [*memory]; NaN in heads that have no fixed point. `eigenvalues` [heads, n] complex, each
    `multiplicity` times. `status` of each head: "stable", "unstable" (some |lambda| > 1; the point is still one),
    "continuum" (lines of fixed points) or "none" (drifts without end)."""

    memory: Tensor
    eigenvalues: Tensor
    multiplicity: int
    status: list[str]


def solve_affine(transition: Transition, shape: tuple[int, ...]) -> Affine:
    """Fixed point and spectrum of one token's transition (no batch or time axis), for a memory of `shape`."""
    return solve_loop([transition], shape)


def solve_loop(transitions: Sequence[Transition], shape: tuple[int, ...]) -> Affine:
    """The same for tokens that come in turn for ever: the memory after the last of them, and the spectrum of one whole
    turn, A_k ... A_1."""
    first = transitions[0]
    B = torch.zeros(shape, dtype=first.decay.dtype)
    if first.left is None:
        decay = torch.ones_like(first.decay)
        for one in transitions:
            decay, B = one.decay * decay, one.decay * B + one.write().expand(shape)
        return _diagonal(decay, B, shape)
    key, value = shape[-2:]
    A = torch.eye(key, dtype=B.dtype).expand(*shape[:-2], key, key)
    for one in transitions:
        A, B = one.apply(A), one.apply(B) + one.write().expand(shape)
    return _dense(A, B, value)


def orbit(transitions: Sequence[Transition], last: Tensor) -> Tensor:
    """[token, *memory]: the memory after each token of a turn that begins with `last` and, where that is the solution,
    ends with it."""
    memories = []
    for one in transitions:
        last = one.apply(last) + one.write().expand(last.shape)
        memories.append(last)
    return torch.stack(memories)


def _dense(A: Tensor, B: Tensor, value: int) -> Affine:
    I = torch.eye(A.shape[-1], dtype=A.dtype)
    eigenvalues = torch.linalg.eigvals(A)
    memory = torch.linalg.pinv(I - A, rtol=_SINGULAR) @ B
    singular = torch.linalg.svdvals(I - A).amin(-1) <= _SINGULAR * max(1.0, float(A.abs().max()))
    left = ((I - A) @ memory - B).abs().flatten(1).amax(1)
    drifts = singular & (left > 1e-9 * (1 + B.abs().flatten(1).amax(1)))
    return _named(memory, eigenvalues, value, singular & ~drifts, drifts)


def _diagonal(decay: Tensor, B: Tensor, shape: tuple[int, ...]) -> Affine:
    rest = (1 - decay).expand(shape)
    still = rest.abs() <= _SINGULAR
    memory = torch.where(still, torch.zeros_like(B), B / torch.where(still, torch.ones_like(rest), rest))
    heads = shape[0]
    drifts = (still & (B != 0)).reshape(heads, -1).any(1)
    continuum = still.reshape(heads, -1).any(1) & ~drifts
    # The decay has one entry for all that shares it, so that what is alike is counted and not listed.
    distinct = decay.expand(heads, *decay.shape[1:]).reshape(heads, -1)
    size = memory[0].numel()
    return _named(memory, distinct, size // distinct.shape[1], continuum, drifts)


def _named(memory: Tensor, eigenvalues: Tensor, multiplicity: int, continuum: Tensor, drifts: Tensor) -> Affine:
    eigenvalues = eigenvalues.to(torch.complex128)
    grows = (eigenvalues.abs() > 1 + 1e-12).any(1)
    status = [
        "none" if d else "continuum" if c else "unstable" if g else "stable"
        for d, c, g in zip(drifts.tolist(), continuum.tolist(), grows.tolist(), strict=True)
    ]
    memory = memory.clone()
    memory[drifts] = torch.nan
    return Affine(memory, eigenvalues, multiplicity, status)
