"""Running tests in another process whose kernels are interpreted: a load outside a tensor kills the process."""

import os
import re
import subprocess
import sys
from pathlib import Path


def passes_interpreted(path: Path, *options: str) -> None:
    """Run the tests in `path` with TRITON_INTERPRET=1, and assert that they pass and that there were some."""
    # Shapes in annotations are not checked there: the checker would wrap the kernels.
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-o", "addopts=", "--import-mode=importlib", "-q"]
    run = subprocess.run(
        [*command, *options, str(path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    report = run.stdout[-6000:] + run.stderr[-3000:]
    assert run.returncode == 0, f"exit status {run.returncode}\n{report}"
    assert re.search(r"\d+ passed", run.stdout), report
