"""Oracle: that of each file in interpreted/, the loop in float64 and autograd through it; for compiling, cuobjdump."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from interpreted import passes_interpreted

_FILES = Path(__file__).parent / "interpreted"


@pytest.mark.slow  # the interpreter runs a kernel's every operation in Python
@pytest.mark.parametrize("name", ["rnn_forward", "rnn_backward", "rnn_operator"])
def test_in_the_interpreter(name):
    pytest.importorskip("triton")
    passes_interpreted(_FILES / f"{name}.py")


@pytest.mark.slow  # a kernel takes the compiler seconds
@pytest.mark.parametrize("name", ["lstm, heads of 64: scan, captures, edits, padding", "gru, heads of 64: gradient"])
def test_heads_of_64_leave_nothing_in_memory_but_what_was_asked_for(name):
    pytest.importorskip("triton")
    # Not in this process: kernels are made when imported, and the checker of shapes would wrap them.
    env = {k: value for k, value in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "strobe.cli", "bench", "--compile", "--match", f"{name}, bf16"]
    found = subprocess.run(
        [*command, "--capability", "90"],
        cwd=Path(__file__).parents[2],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-2000:] + found.stderr[-3000:]
    # The name of an LSTM's row is the end of an sLSTM's.
    lines = (line for line in found.stdout.splitlines() if line.startswith(f"| {name}, bf16 | 90 |"))
    (row,) = (line.split(" | ") for line in lines)
    *_, registers, stack, spills, shared, opcodes, fit = row
    assert 32 < int(registers) <= 255
    assert (stack, spills) == ("0", "0")
    assert 0 < int(shared) <= 232_448
    assert "HMMA" in opcodes
    assert fit.startswith("yes")


def test_the_least_tiles_hold_every_head_and_weights_only_where_they_fit():
    import torch

    from strobe.kernels.triton_rnn.launch import tiles

    assert tiles("lstm", 64, torch.bfloat16).held and tiles("lstm", 64, torch.float32).held
    assert not tiles("lstm", 65, torch.bfloat16).held
    # float16 is multiplied as TF32, so that it takes the room of float32.
    assert tiles("elman", 128, torch.bfloat16).held and tiles("elman", 128, torch.float32).held
    assert not tiles("gru", 128, torch.float16).held
    # What is not held is read a block at a time, or, where one block is 64 KiB, in pieces that divide every such head.
    assert tiles("lstm", 128, torch.bfloat16).piece == 0
    assert all(128 % tiles(cell, 65, torch.float32).piece == 0 for cell in ("gru", "lstm", "slstm"))
    assert tiles("gru", 128, torch.float16) == tiles("gru", 128, torch.float32)
