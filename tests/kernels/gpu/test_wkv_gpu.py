"""Oracle: the loop over the family's `step` in float64 on the CPU, and autograd through it."""

import pytest
import torch
from on_gpu import DTYPES, check, dtype_id, moved, weighed

from strobe.kernels import Edit, scan
from strobe.kernels.wkv import WKV, WKVCarry
from strobe.kernels.wkv.reference import random_signals

pytestmark = pytest.mark.gpu
LOOKS = [0, 63, 64, 500, 1022]


def problem(dtype, time=1023, batch=3, channels=129):
    """(signals, carry) on the GPU and (signals, carry) in float64."""
    signals = random_signals(batch, time, dtype=torch.float64, channels=channels)
    num, den, top = torch.randn(3, batch, channels, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (ours, exact), (carry, wide) = moved(signals, dtype), moved(WKVCarry(num, den.abs() + 0.5, top), torch.float32)
    return (ours, carry), (exact, wide)


def outputs(result):
    found = {"read": result.read, **result.carry._asdict()}
    looked = {} if result.captured is None else result.captured._asdict()
    return {**found, **{f"captured {name}": x for name, x in looked.items()}}


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_real_sizes(dtype):
    edits = [
        Edit(position=100, kind="scale", value=0.5),
        Edit(position=900, kind="add", value=0.1, heads=[1]),
        Edit(position=901, kind="set", value=1.5, field="den", heads=[3]),
    ]
    ours, exact = problem(dtype)
    with torch.no_grad():
        found = scan(WKV, *ours, capture=LOOKS, edits=edits)
        wanted = scan(WKV, *exact, capture=LOOKS, edits=edits, backend="reference")
    assert found.backend == "triton"
    check(outputs(found), outputs(wanted), "kernel, elementwise", dtype)


@pytest.mark.parametrize("size", [100.0, -100.0])
def test_keys_whose_exponential_float32_does_not_hold(size):
    (signals, carry), (wide, exact) = problem(torch.float32)
    # In eighths, so that float32 holds every exponent exactly and only the arithmetic is compared.
    w = -(1 + torch.arange(129) % 8) / 8
    k = size + (8 * wide.k).round() / 8
    signals = signals._replace(k=k.float().to(signals.k.device), w=w.to(signals.w.device))
    wide = wide._replace(k=k, w=w.double())
    with torch.no_grad():
        found = scan(WKV, signals, carry, capture=LOOKS)
        wanted = scan(WKV, wide, exact, capture=LOOKS, backend="reference")
    check(outputs(found), outputs(wanted), "kernel, elementwise", torch.float32)


def test_gradients():
    gradients = []
    for (signals, carry), backend in zip(problem(torch.float32, 255), ("triton", "reference"), strict=True):
        given = {n: x for n, x in {**signals._asdict(), **carry._asdict()}.items() if x is not None}
        leaves = {n: x.requires_grad_() for n, x in given.items()}
        result = scan(WKV, signals, carry, capture=[63, 100], backend=backend)
        found = torch.autograd.grad(weighed(outputs(result)), list(leaves.values()))
        gradients.append(dict(zip(leaves, found, strict=True)))
    check(*gradients, "kernel, elementwise", torch.float32)
