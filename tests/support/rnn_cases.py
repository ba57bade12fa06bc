"""Problems for the step kernel of the nonlinear cells, and what they are compared with: the loop in float64."""

from importlib import import_module
from typing import Any, NamedTuple

import torch

from strobe.core.tolerances import assert_close
from strobe.kernels import Edit, family, scan

CELLS = ["elman", "gru", "lstm", "slstm"]


class Problem(NamedTuple):
    """A family with signals, a carry before them and two readers, all float32, and the same in float64."""

    family: Any
    signals: Any
    carry: Any
    readers: Any
    exact: "Problem | None" = None


def cast(values, dtype):
    return type(values)(*(x if x is None or x.dtype == torch.bool else x.to(dtype) for x in values))


def problem(cell, time=17, batch=3, hidden=7, change=None, heads=1) -> Problem:
    """`change` takes signals and returns others, in float32."""
    it = family(cell)
    signals = import_module(it.step.__module__).random_signals(batch, time, hidden=hidden, heads=heads)
    signals = change(signals) if change else signals
    generator = torch.Generator().manual_seed(3)
    zeros = it.init_carry(signals)
    carry = type(zeros)(*(torch.randn(x.shape, generator=generator) for x in zeros))
    if cell == "slstm":  # a normaliser is at least 1
        carry = carry._replace(n=1 + carry.n.abs())
    readers = torch.randn(2, hidden, generator=generator)
    exact = Problem(it, cast(signals, torch.float64), cast(carry, torch.float64), readers.double())
    return Problem(it, signals, carry, readers, exact)


def run(p: Problem, backend="triton", **kwargs):
    kwargs.setdefault("readers", p.readers)
    return scan(p.family, p.signals, p.carry, backend=backend, **kwargs)


def expected(p: Problem, **kwargs):
    assert p.exact is not None
    return run(p.exact, backend="reference", **kwargs)


def outputs(result):
    """Every tensor of a scan's result, by name."""
    found = {"read": result.read, **{f"carry {n}": x for n, x in result.carry._asdict().items()}}
    if result.captured is not None:
        found.update({f"captured {n}": x for n, x in result.captured._asdict().items()})
    if result.readers is not None:
        found["readers"] = result.readers
    return found


def close(result, exact):
    found, wanted = outputs(result), outputs(exact)
    assert found.keys() == wanted.keys()
    for name, x in found.items():
        assert x.dtype == torch.float32, f"{name} is {x.dtype}"
        assert x.shape == wanted[name].shape, name
        assert_close(x, wanted[name], kind="scan")


def leaves(p: Problem):
    """The differentiable inputs of a problem, by name, made to require gradients."""
    found = {n: x for n, x in p.signals._asdict().items() if x is not None and x.dtype != torch.bool}
    found.update({f"carry {n}": x for n, x in p.carry._asdict().items()})
    return {n: x.requires_grad_() for n, x in {**found, "u": p.readers}.items()}


def gradients(p: Problem, result, extra=()):
    """Gradients of a random weighing of all that a scan answered, with respect to `leaves(p)` and `extra`."""
    generator = torch.Generator().manual_seed(7)
    loss = 0.0
    for x in outputs(result).values():
        loss = loss + (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum()
    inputs = leaves(p)
    found = torch.autograd.grad(loss, [*inputs.values(), *extra])
    return dict(zip([*inputs, *(f"extra {i}" for i in range(len(extra)))], found, strict=True))


def edits(cell, hidden=7):
    """Every kind, some channels, three at one token, every field of the carry, and the last token."""
    generator = torch.Generator().manual_seed(5)
    found = [
        Edit(position=0, kind="add", value=torch.randn(3, 1, generator=generator)),
        Edit(position=4, kind="project_out", value=torch.randn(hidden, generator=generator)),
        Edit(position=9, kind="set", value=torch.randn(2, generator=generator), heads=[5, 1]),
        Edit(position=9, kind="scale", value=-2.5),
        Edit(position=9, kind="project_out", value=torch.tensor([1.0, -2.0, 0.5]), heads=[0, 1, 6]),
        Edit(position=-1, kind="scale", value=torch.rand(hidden, generator=generator)),
    ]
    if cell in ("lstm", "slstm"):
        found.append(Edit(position=9, kind="add", value=0.75, field="c"))
        found.append(Edit(position=11, kind="project_out", value=torch.ones(hidden), field="c"))
    if cell == "slstm":
        found.append(Edit(position=9, kind="set", value=torch.rand(3, 2, generator=generator), field="m", heads=[0, 3]))
        found.append(Edit(position=10, kind="scale", value=1.5, field="n"))
        found.append(Edit(position=12, kind="add", value=torch.rand(hidden, generator=generator), field="n"))
    return found


def padding(batch=3, time=17):
    """Left, inside, and a whole row."""
    mask = torch.ones(batch, time, dtype=torch.bool)
    mask[0, :5], mask[1, 8:11], mask[2] = False, False, False
    return mask
