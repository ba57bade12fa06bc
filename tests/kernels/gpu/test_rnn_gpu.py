"""Oracle: the loop over each cell's `step` in float64 on the CPU, and autograd through it."""

import pytest
import torch
from on_gpu import DTYPES, dtype_id
from on_gpu import check as on_gpu_check
from rnn_cases import CELLS, cast, outputs, problem

from strobe.core.tolerances import relative_error
from strobe.kernels import Edit, scan

pytestmark = pytest.mark.gpu
every_cell = pytest.mark.parametrize("cell", CELLS)
LOOKS = [0, 63, 64, 500, 1022]


def on_gpu(p, dtype):
    """The same problem on the GPU in `dtype`, and the loop's in float64 on what that rounds to."""
    signals, carry = cast(p.signals, dtype), cast(p.carry, dtype)
    ours = p._replace(
        signals=type(signals)(*(None if x is None else x.cuda() for x in signals)),
        carry=type(carry)(*(x.cuda() for x in carry)),
        readers=p.readers.cuda(),
    )
    return ours, p.exact._replace(signals=cast(signals, torch.float64), carry=cast(carry, torch.float64))


def check(found, wanted, dtype):
    on_gpu_check(found, wanted, "kernel, cells", dtype)


@every_cell
@pytest.mark.parametrize("hidden", [64, 128])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_real_sizes(cell, hidden, dtype):
    ours, exact = on_gpu(problem(cell, time=1023, batch=17, hidden=hidden), dtype)
    direction = torch.ones(hidden)
    results = []
    for p, backend in ((ours, "auto"), (exact, "reference")):
        edits = [
            Edit(position=100, kind="scale", value=0.5),
            Edit(position=500, kind="project_out", value=direction.to(p.carry.h.device)),
            Edit(position=900, kind="add", value=0.1, heads=[1]),
        ]
        with torch.no_grad():
            results.append(
                scan(p.family, p.signals, p.carry, capture=LOOKS, edits=edits, readers=p.readers, backend=backend)
            )
    assert results[0].backend == "triton"
    check(outputs(results[0]), outputs(results[1]), dtype)


@every_cell
@pytest.mark.parametrize("hidden", [64, 128])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_gradients(cell, hidden, dtype):
    ours, exact = on_gpu(problem(cell, time=255, batch=5, hidden=hidden), dtype)
    found = []
    for p, backend in ((ours, "triton"), (exact, "reference")):
        inputs = {
            n: x.requires_grad_() for n, x in {**p.signals._asdict(), **p.carry._asdict()}.items() if x is not None
        }
        edits = [Edit(position=80, kind="scale", value=0.5), Edit(position=200, kind="set", value=0.1, heads=[0, 3])]
        result = scan(p.family, p.signals, p.carry, capture=[63, 100], edits=edits, backend=backend)
        generator = torch.Generator().manual_seed(7)
        loss = 0.0
        for x in outputs(result).values():
            loss = loss + (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum()
        found.append(dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values())), strict=True)))
    check(*found, dtype)


@every_cell
@pytest.mark.parametrize("heads", [12, 6])
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_a_width_of_768_in_heads(cell, heads, dtype):
    ours, exact = on_gpu(problem(cell, time=255, batch=17, hidden=768, heads=heads), dtype)
    with torch.no_grad():
        found = scan(ours.family, ours.signals, ours.carry, capture=[63, 200], readers=ours.readers)
        wanted = scan(
            exact.family, exact.signals, exact.carry, capture=[63, 200], readers=exact.readers, backend="reference"
        )
    assert found.backend == "triton"
    check(outputs(found), outputs(wanted), dtype)


def test_a_compiled_scan_is_one_graph_and_equals_eager():
    ours, _ = on_gpu(problem("lstm", time=300, hidden=64), torch.bfloat16)

    def scanned(signals, carry):
        return scan(ours.family, signals, carry).read

    with torch.no_grad():
        compiled = torch.compile(scanned, fullgraph=True)(ours.signals, ours.carry)
        assert relative_error(compiled.float(), scanned(ours.signals, ours.carry).float()) == 0
