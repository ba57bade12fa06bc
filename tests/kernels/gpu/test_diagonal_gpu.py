"""Oracle: the loop over the family's `step` in float64 on the CPU, and autograd through it."""

import pytest
import torch
from on_gpu import DTYPES, check, dtype_id, moved, weighed

from strobe.kernels import Edit, scan
from strobe.kernels.diagonal import DIAGONAL, DiagonalCarry
from strobe.kernels.diagonal.reference import random_signals

pytestmark = pytest.mark.gpu
LOOKS = [0, 63, 64, 500, 1022]


def problem(dtype, time=1023, batch=3, channels=129):
    """(signals, carry) on the GPU and (signals, carry) in float64."""
    signals = random_signals(batch, time, dtype=torch.float64, channels=channels)
    h = torch.randn(batch, channels, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (ours, exact), (h, wide) = moved(signals, dtype), moved(DiagonalCarry(h), torch.float32)
    return (ours, h), (exact, wide)


def outputs(result):
    found = {"read": result.read, "carry": result.carry.h}
    return found if result.captured is None else {**found, "captured": result.captured.h}


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_real_sizes(dtype):
    edits = [Edit(position=100, kind="scale", value=0.5), Edit(position=900, kind="add", value=0.1, heads=[1])]
    ours, exact = problem(dtype)
    with torch.no_grad():
        found = scan(DIAGONAL, *ours, capture=LOOKS, edits=edits)
        wanted = scan(DIAGONAL, *exact, capture=LOOKS, edits=edits, backend="reference")
    assert found.backend == "triton"
    check(outputs(found), outputs(wanted), "kernel, elementwise", dtype)


def test_a_complex_carry():
    signals = random_signals(2, 1023, dtype=torch.complex64, channels=65)
    with torch.no_grad():
        found = scan(DIAGONAL, type(signals)(*(x.cuda() for x in signals)), capture=LOOKS)
        wide = type(signals)(*(x.to(torch.complex128) for x in signals))
        wanted = scan(DIAGONAL, wide, capture=LOOKS, backend="reference")
    assert found.backend == "triton"
    check(outputs(found), outputs(wanted), "kernel, elementwise", torch.float32)


def test_gradients():
    gradients = []
    for (signals, carry), backend in zip(problem(torch.float32, 255), ("triton", "reference"), strict=True):
        leaves = {n: x.requires_grad_() for n, x in {**signals._asdict(), **carry._asdict()}.items()}
        edits = [Edit(position=80, kind="scale", value=0.5)]
        result = scan(DIAGONAL, signals, carry, capture=[63, 100], edits=edits, backend=backend)
        found = torch.autograd.grad(weighed(outputs(result)), list(leaves.values()))
        gradients.append(dict(zip(leaves, found, strict=True)))
    check(*gradients, "kernel, elementwise", torch.float32)
