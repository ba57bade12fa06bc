"""Oracle: Triton's launcher and compiler, on a GPU that is only pretended: what a scan launches, they take.

No number is looked at: nothing is computed. Every family runs one token of one sequence, whose sizes the launcher makes
constants of: plain, with all that can be asked for, and with gradients through both.
"""

import matrix_cases
import pytest
import rnn_cases
import selective_cases
import torch

from strobe.kernels import Edit, scan


def launched(family, signals, carry, readers, launches):
    """The names of the kernels that scans of `signals` launch, each on the device of its tensors."""
    batch, time = family.tokens(signals)
    edits = [Edit(position=0, kind="scale", value=0.5)]
    every = {"capture": [0], "edits": edits, "readers": readers, "mask": torch.ones(batch, time, dtype=torch.bool)}
    inputs = type(signals)(*(x if x is None or x.dtype == torch.bool else x.clone().requires_grad_() for x in signals))
    for asked in ({}, every):
        with torch.no_grad():
            assert scan(family, signals, carry, backend="triton", **asked).backend == "triton"
        result = scan(family, inputs, carry, backend="triton", **asked)
        outputs = (result.read, *result.carry, *(result.captured or ()), result.readers)
        sum(x.abs().sum() for x in outputs if x is not None).backward()
    assert {one.on for one in launches} == {-1}, "a launch was not made on the device of its tensors"
    return {one.kernel for one in launches}


def cast(values, dtype):
    return type(values)(*(x if x is None or x.dtype == torch.bool else x.to(dtype) for x in values))


@pytest.mark.parametrize(
    ("cell", "time", "batch", "hidden", "dtype"),
    [*((cell, 1, 1, 1, torch.bfloat16) for cell in rnn_cases.CELLS), ("gru", 5, 17, 128, torch.float32)],
)
def test_cells(cell, time, batch, hidden, dtype, launches):
    p = rnn_cases.problem(cell, time=time, batch=batch, hidden=hidden)
    found = launched(p.family, cast(p.signals, dtype), cast(p.carry, dtype), p.readers[:1], launches)
    assert found == {"forward_kernel", "backward_kernel"}


# Each rank once, and a decay per channel.
@pytest.mark.parametrize("case", [*matrix_cases.CASES[:3], matrix_cases.CASES[4]], ids=matrix_cases.case_id)
def test_matrix_states(case, launches):
    p = matrix_cases.problem(case, time=1, heads=1, groups=1, key=1, value=1)
    found = launched(p.family, cast(p.signals, torch.bfloat16), p.carry, p.readers[:1], launches)
    inverse = set() if case[0] == "decay" else {"inverse_kernel"}
    assert found == {"scan_kernel", "carry_gradient_kernel", "input_gradient_kernel", *inverse}


def test_selective(launches):
    p = selective_cases.problem(time=1, channels=1, state=1)
    found = launched(p.family, cast(p.signals, torch.bfloat16), p.carry, p.readers[:1], launches)
    assert found == {"scan_kernel", "gradient_kernel"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64])
@pytest.mark.parametrize(("time", "channels"), [(1, 1), (17, 65)])
def test_diagonal(time, channels, dtype, launches):
    from strobe.kernels.diagonal import DIAGONAL
    from strobe.kernels.diagonal.reference import random_signals

    signals = random_signals(1, time, channels=channels, dtype=dtype if dtype.is_complex else torch.float32)
    signals = signals if dtype.is_complex else cast(signals, dtype)
    assert launched(DIAGONAL, signals, None, None, launches) == {"scan_kernel", "gradient_kernel"}


@pytest.mark.parametrize(("time", "channels", "dtype"), [(1, 1, torch.bfloat16), (17, 65, torch.float32)])
def test_wkv(time, channels, dtype, launches):
    from strobe.kernels.wkv import WKV
    from strobe.kernels.wkv.reference import random_signals

    signals = cast(random_signals(1, time, channels=channels), dtype)
    found = launched(WKV, signals, None, torch.randn(1, channels), launches)
    assert found == {"scan_kernel", "gradient_kernel"}
