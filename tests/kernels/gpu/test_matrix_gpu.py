"""Oracle: the loop over each family's `step` in float64 on the CPU, and autograd through it."""

import pytest
import torch
from matrix_cases import CASES, case_id, outputs, problem
from on_gpu import DTYPES, dtype_id
from on_gpu import check as on_gpu_check

from strobe.core.tolerances import relative_error
from strobe.kernels import Edit, scan

pytestmark = pytest.mark.gpu
every_case = pytest.mark.parametrize("case", CASES, ids=case_id)
LOOKS = [0, 63, 64, 100, 511, 700, 1022]


def on_gpu(p, dtype):
    """The same problem on the GPU in `dtype`, and the loop's in float64 on what that rounds to."""
    signals = type(p.signals)(*(None if x is None else x.cuda().to(dtype) for x in p.signals))
    exact = type(p.signals)(*(None if x is None else x.double().cpu() for x in signals))
    ours = p._replace(signals=signals, carry=type(p.carry)(p.carry.S.cuda()), readers=p.readers.cuda())
    return ours, p.exact._replace(signals=exact)


def check(found, wanted, dtype):
    on_gpu_check(found, wanted, "kernel, chunks", dtype)


@every_case
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_id)
def test_real_sizes(case, dtype):
    value = 64 if case[0] == "decay" else 128
    ours, exact = on_gpu(problem(case, time=1023, batch=2, heads=4, groups=2, key=128, value=value), dtype)
    edits = [
        Edit(position=100, kind="scale", value=0.5),
        Edit(position=500, kind="project_out", value=torch.ones(128, device="cuda"), heads=[0]),
        Edit(position=900, kind="add", value=0.1, heads=[1]),
    ]
    on_cpu = [
        Edit(position=e.position, kind=e.kind, value=torch.as_tensor(e.value).cpu(), heads=e.heads) for e in edits
    ]
    with torch.no_grad():
        found = scan(ours.family, ours.signals, ours.carry, capture=LOOKS, edits=edits, readers=ours.readers)
        assert found.backend == "triton"
        wanted = scan(
            exact.family,
            exact.signals,
            exact.carry,
            capture=LOOKS,
            edits=on_cpu,
            readers=exact.readers,
            backend="reference",
        )
    check(outputs(found), outputs(wanted), dtype)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_gradients(case, dtype):
    ours, exact = on_gpu(problem(case, time=255, batch=1, heads=2, groups=1, key=64, value=64), dtype)
    gradients = []
    for p, backend in ((ours, "triton"), (exact, "reference")):
        inputs = {n: x.requires_grad_() for n, x in {**p.signals._asdict(), "S": p.carry.S}.items() if x is not None}
        result = scan(p.family, p.signals, p.carry, capture=[63, 100], backend=backend)
        generator = torch.Generator().manual_seed(7)
        loss = 0.0
        for x in outputs(result).values():
            loss = loss + (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum()
        gradients.append(dict(zip(inputs, torch.autograd.grad(loss, list(inputs.values())), strict=True)))
    check(*gradients, dtype)


def test_a_carry_beyond_float16_does_not_overflow():
    p = problem(CASES[0], time=300, key=64, value=64)
    p = p._replace(carry=type(p.carry)(p.carry.S * 1e6))
    p = p._replace(exact=p.exact._replace(carry=type(p.carry)(p.carry.S.double())))
    ours, exact = on_gpu(p, torch.float16)
    with torch.no_grad():
        found = scan(ours.family, ours.signals, ours.carry)
        wanted = scan(exact.family, exact.signals, exact.carry, backend="reference")
    check(outputs(found), outputs(wanted), torch.float16)


def test_a_compiled_scan_is_one_graph_and_equals_eager():
    ours, _ = on_gpu(problem(CASES[2], time=300, key=64, value=64), torch.bfloat16)

    def scanned(signals, carry):
        return scan(ours.family, signals, carry).read

    with torch.no_grad():
        compiled = torch.compile(scanned, fullgraph=True)(ours.signals, ours.carry)
        assert relative_error(compiled, scanned(ours.signals, ours.carry)) == 0


def test_one_captured_position_of_many_costs_no_trajectory():
    ours, _ = on_gpu(problem(CASES[0], time=4096, heads=8, key=128, value=64), torch.bfloat16)
    with torch.no_grad():
        scan(ours.family, ours.signals, ours.carry)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        scan(ours.family, ours.signals, ours.carry, capture=list(range(0, 4096, 41)), readers=None)
        torch.cuda.synchronize()
    state = 8 * 128 * 64 * 4
    reads = 4096 * 8 * 64 * 4
    # A hundred states and a few copies of the reads; the whole trajectory would be 4096 states.
    assert torch.cuda.max_memory_allocated() - before < 220 * state + 4 * reads
