"""Oracle: the loop over the family's `step` in float64 and complex128, and autograd through it; opcheck."""

import pytest
import torch

from strobe.core.tolerances import assert_close
from strobe.kernels import Edit, scan
from strobe.kernels.diagonal import DIAGONAL, DiagonalCarry, DiagonalSignals
from strobe.kernels.diagonal.reference import random_signals
from strobe.kernels.triton_diagonal.operator import BLOCK, diagonal_scan

LOOKS = [20, 0, 15, -1, 16, 20]
REAL, COMPLEX = torch.float32, torch.complex64
WIDE = {REAL: torch.float64, COMPLEX: torch.complex128}
both = pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=["real", "complex"])


def problem(dtype, time=37, batch=2, channels=5):
    signals = random_signals(batch, time, dtype=dtype, channels=channels)
    generator = torch.Generator().manual_seed(3)
    h = torch.randn(batch, channels, generator=generator, dtype=dtype)
    return [*signals, h, torch.randn(2, channels, generator=generator, dtype=dtype)]


def run(inputs, backend="triton", **asked):
    a, b, h, readers = inputs
    return scan(DIAGONAL, DiagonalSignals(a, b), DiagonalCarry(h), readers=readers, backend=backend, **asked)


def expected(inputs, **asked):
    return run([x.to(WIDE.get(x.dtype, x.dtype)) for x in inputs], "reference", **asked)


def outputs(result):
    found = {"read": result.read, "carry": result.carry.h, "readers": result.readers}
    return found if result.captured is None else {**found, "captured": result.captured.h}


def close(result, wanted):
    found, wanted = outputs(result), outputs(wanted)
    assert found.keys() == wanted.keys()
    for name, x in found.items():
        assert x.is_complex() == wanted[name].is_complex()
        assert_close(*(torch.view_as_real(y) if y.is_complex() else y for y in (x, wanted[name])), kind="scan")


@both
@pytest.mark.parametrize("time", [1, 2, 37])
def test_reads_carries_captures_and_readers(dtype, time):
    p = problem(dtype, time)
    looks = LOOKS if time == 37 else "all"
    result = run(p, capture=looks)
    assert result.backend == "triton"
    assert result.read.dtype == dtype
    close(result, expected(p, capture=looks))


@both
def test_edits(dtype):
    p = problem(dtype)
    value = torch.randn(5, generator=torch.Generator().manual_seed(5), dtype=dtype)
    edits = [
        Edit(position=4, kind="set", value=value[:2], heads=[1, 4]),
        Edit(position=15, kind="scale", value=value),
        Edit(position=15, kind="add", value=0.25, heads=[0]),
        Edit(position=22, kind="project_out", value=value.real.clone() if dtype == REAL else value),
        Edit(position=-1, kind="scale", value=-2.0),
    ]
    takes = [DIAGONAL.backends["triton"].takes(e, p[:2], DiagonalCarry(p[2])) for e in edits]
    assert takes == [True, True, True, False, True]
    close(run(p, capture=LOOKS, edits=edits), expected(p, capture=LOOKS, edits=edits))


def test_a_real_decay_of_a_complex_carry_more_channels_than_a_program_holds_and_other_layouts():
    a = problem(REAL, 7, channels=BLOCK + 3)[0].mT.contiguous().mT
    p = [a, *problem(COMPLEX, 7, channels=BLOCK + 3)[1:]]
    p[1] = p[1].conj()
    close(run(p), expected([a.to(torch.float64), *p[1:]]))


@both
def test_gradients_of_every_input_and_through_edits(dtype):
    p, gradients = problem(dtype, 11), []
    scale = torch.rand(5) + 0.5
    for wide in (False, True):
        inputs = [(x.to(WIDE[dtype]) if wide else x).detach().requires_grad_() for x in p]
        by = (scale.double() if wide else scale).clone().requires_grad_()
        edits = [Edit(position=6, kind="scale", value=by.to(inputs[0].dtype))]
        result = run(inputs, "reference" if wide else "triton", capture=[3, 6], edits=edits)
        generator, loss = torch.Generator().manual_seed(7), 0.0
        for x in outputs(result).values():
            weights = torch.randn(x.shape, generator=generator, dtype=torch.complex128)
            loss = loss + ((x * weights.to(x.dtype)).real if x.is_complex() else x * weights.real.to(x.dtype)).sum()
        gradients.append(torch.autograd.grad(loss, [*inputs, by]))
    for x, y in zip(*gradients, strict=True):
        assert y.abs().max() > 0
        assert_close(*(torch.view_as_real(z) if z.is_complex() else z for z in (x, y)), kind="scan")


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_decays_of_exactly_zero_and_one_and_padding(decay):
    a, b, h, u = problem(REAL, 19)
    a[:, 5:9] = decay
    mask = torch.ones(2, 19, dtype=torch.bool)
    mask[0, :3] = False
    close(run([a, b, h, u], mask=mask), expected([a, b, h, u], mask=mask))


@both
def test_a_nan_goes_where_the_loop_takes_it_and_nowhere_else(dtype):
    p = problem(dtype, 9)
    p[1][0, 4, -1] = torch.nan
    found, wanted = run(p).read, expected(p).read
    assert wanted.isnan().any()
    assert torch.equal(found.isnan(), wanted.isnan())


@both
def test_the_operator_is_what_torch_expects(dtype):
    a, b, h, _ = (x.requires_grad_() for x in problem(dtype, 3, channels=2))
    torch.library.opcheck(diagonal_scan, (a, b, h, None, None, [], []))


@both
def test_a_compiled_scan_is_one_graph_and_equals_eager(dtype):
    inputs = [x.requires_grad_() for x in problem(dtype, 5)]

    def scanned(*inputs):
        result = run(inputs, capture=[3])
        return sum(x.abs().square().sum() for x in outputs(result).values())

    eager = torch.autograd.grad(scanned(*inputs), inputs)
    compiled = torch.autograd.grad(torch.compile(scanned, fullgraph=True, backend="aot_eager")(*inputs), inputs)
    for x, y in zip(compiled, eager, strict=True):
        assert y.abs().max() > 0
        assert_close(*(torch.view_as_real(z) if z.is_complex() else z for z in (x, y)), kind="scan")


def test_what_cannot_run_is_refused_and_an_empty_batch_is_not():
    p = problem(REAL, 3)
    with pytest.raises(ValueError, match=r"'triton' was asked for.*a is float64.*backend='chunked'"):
        run([x.double() for x in p])
    none = run([p[0][:0], p[1][:0], p[2][:0], p[3]], capture=[1])
    assert {n: tuple(x.shape) for n, x in outputs(none).items()} == {
        "read": (0, 3, 5),
        "carry": (0, 5),
        "readers": (0, 3, 2),
        "captured": (0, 1, 5),
    }


def test_a_gradient_reaches_a_learned_edit_through_one_that_is_not():
    p, found = problem(REAL), {}
    for backend, inputs in (("triton", p), ("reference", [x.double() for x in p])):
        value = torch.full((5,), 0.7, dtype=inputs[0].dtype, requires_grad=True)
        edits = [Edit(position=6, kind="scale", value=value), Edit(position=8, kind="scale", value=0.5)]
        result = run(inputs, backend, edits=edits, capture=[-1])
        total = result.read.square().sum() + 3 * result.carry.h.sum() + 5 * result.captured.h.square().sum()
        (found[backend],) = torch.autograd.grad(total, value)
    assert_close(found["triton"], found["reference"], kind="scan")
