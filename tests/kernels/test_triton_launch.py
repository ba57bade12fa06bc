"""Oracle: that of pretended/launches.py, Triton's launcher and compiler; here it is started, in its own process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_FILE = Path(__file__).parent / "pretended" / "launches.py"


@pytest.mark.slow  # the compiler takes a kernel seconds
def test_what_a_scan_launches_can_be_launched():
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-o", "addopts=", "--import-mode=importlib", "-q"]
    # Not in this process: its driver is a pretended one, and the checker of shapes would wrap the kernels.
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [*command, str(_FILE)], cwd=_FILE.parents[3], env=env, capture_output=True, text=True, check=False
    )
    report = run.stdout[-6000:] + run.stderr[-3000:]
    assert run.returncode == 0, f"exit status {run.returncode}\n{report}"
    assert re.search(r"\d+ passed", run.stdout), report
