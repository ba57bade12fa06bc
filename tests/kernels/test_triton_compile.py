"""Oracle: ptxas and cuobjdump, which say what a kernel occupies; the table in docs/ is the command's own output."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# A scan, plain and with everything in it, and a kernel of each other kind; the whole table is `strobe bench --compile`.
SOME = [
    "Mamba-2 (130M to 2.7B): scan, bf16",
    "Gated DeltaNet in Qwen3-Next: inverse",
    "Qwen3-Next: gradient of the carry",
]


def strobe_bench(*options):
    # Not in this process: kernels are made when imported, and the checker of shapes would wrap them.
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "strobe.cli", "bench", "--compile", *options]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow  # a kernel takes the compiler seconds
@pytest.mark.parametrize("name", SOME)
def test_kernels_fit_without_spills_and_use_tensor_cores(name):
    pytest.importorskip("triton")
    found = strobe_bench("--match", name, "--capability", "90")
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-3000:]
    rows = [line.split(" | ") for line in found.stdout.splitlines() if line.startswith("| ") and "| 90 |" in line]
    assert len(rows) == 1
    *_, registers, stack, spills, shared, opcodes, fit = rows[0]
    assert 32 < int(registers) <= 255
    assert (stack, spills) == ("0", "0")
    assert 0 < int(shared) <= 232_448
    assert "MMA" in opcodes
    assert fit.startswith("yes")


def test_a_name_that_no_kernel_has_is_an_error():
    pytest.importorskip("triton")
    found = strobe_bench("--match", "LSTM in Mamba")
    assert found.returncode != 0
    assert "no kernel's name contains 'LSTM in Mamba'" in found.stdout + found.stderr


def test_what_does_not_fit_is_said():
    from strobe.kernels.triton.ahead_of_time import Compiled, Variant

    def problems(stack=0, allowed=0, shared=1000, spills=0, opcodes=None, capability=90):
        variant = Variant(
            name="x",
            kernel=None,
            signature={},
            constants={},
            num_warps=4,
            num_stages=1,
            stack={90: allowed},
            tensor_rows=64,
        )
        return Compiled(
            variant=variant,
            capability=capability,
            registers=255,
            stack=stack,
            local_loads_and_stores=spills,
            shared=shared,
            tensor_opcodes={"HGMMA": 1} if opcodes is None else opcodes,
            seconds=1.0,
        ).problems()

    assert problems() == []
    assert problems(stack=24, allowed=24, spills=9) == []
    assert problems(stack=24) == ["24 bytes of stack, 0 are allowed"]
    assert problems(spills=2) == ["2 spills"]
    assert problems(shared=232_449) == ["232449 bytes of shared memory, of 232448"]
    assert problems(shared=170_000, capability=80) == ["170000 bytes of shared memory, of 166912"]
    assert problems(opcodes={}) == ["no tensor-core instruction"]


def test_the_committed_table_has_every_kernel_and_each_fits():
    pytest.importorskip("triton")
    from strobe.kernels.triton_matrix.variants import SHAPES

    page = (ROOT / "docs" / "triton_compile.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| kernel")]
    for name, rank, *_ in SHAPES:
        for capability in ("90", "80"):
            found = [row for row in rows if row.startswith(f"| {name}: ") and row.split(" | ")[1] == capability]
            assert len(found) >= (6 if rank else 5)
    assert [row for row in rows if not row.endswith("| yes |")] == []
    # In float32 the scan's tiles are the capability's own where one of rank 1 would not fit the other's.
    assert [len([row for row in rows if f"{name}: scan, fp32" in row]) for name in (SHAPES[0][0], SHAPES[3][0])] == [
        2,
        2,
    ]


@pytest.mark.slow  # another process imports every kernel
def test_the_committed_table_has_what_the_command_would_compile_in_its_order():
    pytest.importorskip("triton")
    listing = (
        "from strobe.kernels.triton.variants import variants\n"
        "for v in variants():\n    for c in (90, 80):\n        if c in v.capabilities: print(v.name, c, sep=' | ')"
    )
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    found = subprocess.run(
        [sys.executable, "-c", listing], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    page = (ROOT / "docs" / "triton_compile.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| kernel")]
    assert [" | ".join(row.removeprefix("| ").split(" | ")[:2]) for row in rows] == found.stdout.splitlines()
