"""Oracle: that of pretended/launches.py, Triton's launcher and compiler; here it is started, in its own process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

_FILE = Path(__file__).parent / "pretended" / "launches.py"


@pytest.mark.slow  # the compiler takes a kernel seconds
def test_what_a_scan_launches_can_be_launched():
    pytest.importorskip("triton")
    # Not in this process: the checker of shapes would wrap the kernels, and the driver is a pretended one. That is a
    # plugin and not a conftest.py: every run that passes the folder would load it and think that a GPU is there.
    plugins = ["-p", "no:xdist", "-p", "pretended_gpu"]
    command = [sys.executable, "-m", "pytest", *plugins, "-o", "addopts=", "--import-mode=importlib", "-q"]
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = str(_FILE.parents[2] / "support")
    run = subprocess.run(
        [*command, str(_FILE)], cwd=_FILE.parents[3], env=env, capture_output=True, text=True, check=False
    )
    report = run.stdout[-6000:] + run.stderr[-3000:]
    assert run.returncode == 0, f"exit status {run.returncode}\n{report}"
    assert re.search(r"\d+ passed", run.stdout), report


def test_nobody_else_thinks_that_a_gpu_is_there():
    """In a run that has collected this folder."""
    from strobe.kernels.triton import backend, device

    assert device.why_not_on(torch.device("cpu")) is not None
    assert backend.why_not_on is device.why_not_on
