"""Problems for the chunk kernel of `decay` and `delta`, and comparing its answers with the loop in float64."""

from importlib import import_module
from typing import Any, NamedTuple

import torch

from strobe.core.tolerances import assert_close
from strobe.kernels import family, scan

CASES = [
    ("decay", {}),
    ("decay", {"per_channel": True}),
    ("delta", {"delta_rule": True}),
    ("delta", {"delta_rule": True, "per_channel": True}),
    ("delta", {}),
    ("delta", {"per_channel": True}),
]


def case_id(case):
    return "-".join([case[0], *case[1]])


class Problem(NamedTuple):
    """A family with signals, a carry before them and two readers, all float32, and the same in float64."""

    family: Any
    signals: Any
    carry: Any
    readers: Any
    exact: "Problem | None" = None


def problem(case, time=37, batch=1, heads=2, groups=1, key=8, value=6, change=None) -> Problem:
    """`change` takes signals and returns others, in float64."""
    name, options = case
    it = family(name)
    make = import_module(it.step.__module__).random_signals
    signals = make(batch, time, dtype=torch.float64, heads=heads, groups=groups, key=key, value=value, **options)
    signals = change(signals) if change else signals
    generator = torch.Generator().manual_seed(3)
    S = torch.randn(batch, heads, key, value, generator=generator)
    readers = torch.randn(2, heads, key, generator=generator)
    carry = type(it.init_carry(signals))
    rounded = cast(signals, torch.float32)
    exact = Problem(it, cast(rounded, torch.float64), carry(S.double()), readers.double())
    return Problem(it, rounded, carry(S), readers, exact)


def cast(signals, dtype):
    return type(signals)(*(None if x is None else x.to(dtype) for x in signals))


def run(p: Problem, backend="triton", **kwargs):
    kwargs.setdefault("readers", p.readers)
    return scan(p.family, p.signals, p.carry, backend=backend, **kwargs)


def expected(p: Problem, **kwargs):
    assert p.exact is not None
    return run(p.exact, backend="reference", **kwargs)


def outputs(result):
    """Every tensor of a scan's result, by name."""
    found = {"read": result.read, "carry": result.carry.S}
    if result.captured is not None:
        found["captured"] = result.captured.S
    if result.readers is not None:
        found["readers"] = result.readers
    return found


def close(result, exact, kind="scan"):
    found, wanted = outputs(result), outputs(exact)
    assert found.keys() == wanted.keys()
    for name, x in found.items():
        assert x.dtype == torch.float32, f"{name} is {x.dtype}"
        assert_close(x, wanted[name], kind=kind)


def leaves(p: Problem):
    """The differentiable inputs of a problem, by name, made to require gradients."""
    found = {n: x for n, x in p.signals._asdict().items() if x is not None}
    return {n: x.requires_grad_() for n, x in {**found, "S": p.carry.S, "u": p.readers}.items()}


def gradients(p: Problem, result, extra=()):
    """Gradients of a random weighing of all that a scan answered, with respect to `leaves(p)` and `extra`."""
    generator = torch.Generator().manual_seed(7)
    loss = 0.0
    for x in outputs(result).values():
        loss = loss + (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum()
    inputs = leaves(p)
    found = torch.autograd.grad(loss, [*inputs.values(), *extra])
    return dict(zip([*inputs, *(f"extra {i}" for i in range(len(extra)))], found, strict=True))
