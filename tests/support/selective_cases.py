"""Problems for the kernel of `selective`, and comparing its answers with the loop in float64."""

import torch
from matrix_cases import Problem, cast

from strobe.core.tolerances import assert_close
from strobe.kernels import scan
from strobe.kernels.selective import SELECTIVE, SelectiveCarry
from strobe.kernels.selective.reference import random_signals


def problem(time=37, batch=1, channels=6, state=5, change=None, per_channel=False) -> Problem:
    """Float32 signals, carry and two readers, and the same in float64. `change` takes signals, in float64."""
    signals = random_signals(batch, time, dtype=torch.float64, channels=channels, state=state)
    signals = change(signals) if change else signals
    generator = torch.Generator().manual_seed(3)
    h = torch.randn(batch, channels, state, generator=generator)
    readers = torch.randn(*((2, channels, state) if per_channel else (2, state)), generator=generator)
    rounded = cast(signals, torch.float32)
    exact = Problem(SELECTIVE, cast(rounded, torch.float64), SelectiveCarry(h.double()), readers.double())
    return Problem(SELECTIVE, rounded, SelectiveCarry(h), readers, exact)


def run(p: Problem, backend="triton", **kwargs):
    kwargs.setdefault("readers", p.readers)
    return scan(p.family, p.signals, p.carry, backend=backend, **kwargs)


def expected(p: Problem, **kwargs):
    assert p.exact is not None
    return run(p.exact, backend="reference", **kwargs)


def outputs(result):
    """Every tensor of a scan's result, by name."""
    found = {"read": result.read, "carry": result.carry.h, "readers": result.readers}
    if result.captured is not None:
        found["captured"] = result.captured.h
    return {name: x for name, x in found.items() if x is not None}


def close(result, exact):
    found, wanted = outputs(result), outputs(exact)
    assert found.keys() == wanted.keys()
    for name, x in found.items():
        assert x.dtype == torch.float32, f"{name} is {x.dtype}"
        assert_close(x, wanted[name], kind="scan")


def leaves(p: Problem):
    """The differentiable inputs of a problem, by name, made to require gradients."""
    return {n: x.requires_grad_() for n, x in {**p.signals._asdict(), "h": p.carry.h, "u": p.readers}.items()}


def gradients(p: Problem, result, extra=()):
    """Gradients of a random weighing of all that a scan answered, with respect to `leaves(p)` and `extra`."""
    generator = torch.Generator().manual_seed(7)
    loss = 0.0
    for x in outputs(result).values():
        loss = loss + (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum()
    inputs = leaves(p)
    found = torch.autograd.grad(loss, [*inputs.values(), *extra])
    return dict(zip([*inputs, *(f"extra {i}" for i in range(len(extra)))], found, strict=True))
