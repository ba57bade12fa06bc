"""Oracle: the loop over the family's `step` in float64 on the CPU, and autograd through it."""

import pytest
import torch
from matrix_cases import cast
from on_gpu import DTYPES, check, dtype_id
from selective_cases import gradients, leaves, outputs, problem

from strobe.kernels import Edit, scan

pytestmark = pytest.mark.gpu


def on_gpu(p, dtype):
    """The same problem on the GPU with signals in `dtype`, and the loop's in float64 on what they round to."""
    signals = cast(p.signals, dtype)._replace(A=p.signals.A)
    exact = p.exact._replace(signals=cast(signals, torch.float64))
    signals = type(signals)(*(x.cuda() for x in signals))
    return p._replace(signals=signals, carry=type(p.carry)(p.carry.h.cuda()), readers=p.readers.cuda()), exact


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_real_sizes(dtype):
    ours, exact = on_gpu(problem(time=1023, batch=2, channels=129, state=16), dtype)
    edits = [Edit(position=100, kind="scale", value=0.5), Edit(position=900, kind="add", value=0.1, heads=[1])]
    asked = {"capture": [0, 63, 64, 100, 700, 1022], "edits": edits}
    with torch.no_grad():
        found = scan(ours.family, ours.signals, ours.carry, readers=ours.readers, **asked)
        wanted = scan(
            exact.family, exact.signals, exact.carry, readers=exact.readers, backend="reference", **asked
        )  # fmt: skip
    assert found.backend == "triton"
    check(outputs(found), outputs(wanted), "kernel, elementwise", dtype)


def test_gradients():
    ours, exact = on_gpu(problem(time=255, channels=70, state=16), torch.float32)
    found = []
    for p, backend in ((ours, "triton"), (exact, "reference")):
        leaves(p)
        result = scan(p.family, p.signals, p.carry, capture=[63, 100], readers=p.readers, backend=backend)
        found.append(gradients(p, result))
    check(*found, "kernel, elementwise", torch.float32)
