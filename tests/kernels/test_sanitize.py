"""Oracle: what the script has to say where it cannot check, and has to start where it can, kept by stand-ins."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parent / "gpu" / "sanitize.sh"


def stand_in(folder, name, body):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def run(folder, python):
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "PYTHON": str(python), "LOG": str(folder / "log")}
    return subprocess.run(["sh", SCRIPT], env=environment, capture_output=True, text=True, check=False)


def test_without_the_tool_or_a_device_it_says_so(tmp_path):
    found = run(tmp_path, stand_in(tmp_path, "python", "exit 1"))
    assert (found.returncode, found.stdout.count("NOTICE: compute-sanitizer is not on the path")) == (0, 1)
    stand_in(tmp_path, "compute-sanitizer", 'echo "$@" >> "$LOG"')
    found = run(tmp_path, tmp_path / "python")
    assert (found.returncode, found.stdout.count("NOTICE: no CUDA device here")) == (0, 1)
    assert not (tmp_path / "log").exists()


def test_both_tools_run_the_gpu_tests_and_an_error_of_either_fails(tmp_path):
    python = stand_in(tmp_path, "python", "exit 0")
    stand_in(tmp_path, "compute-sanitizer", 'echo "$PYTORCH_NO_CUDA_MEMORY_CACHING $@" >> "$LOG"')
    assert run(tmp_path, python).returncode == 0
    lines = (tmp_path / "log").read_text().splitlines()
    for line, tool in zip(lines, ("memcheck", "racecheck"), strict=True):
        assert line.startswith(f"1 --tool {tool} --error-exitcode 1 {python} -m pytest")
        assert "-m gpu tests/kernels/gpu" in line
    stand_in(tmp_path, "compute-sanitizer", '[ "$2" != racecheck ]')
    assert run(tmp_path, python).returncode != 0


def test_the_script_can_be_run_as_make_runs_it():
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert 'PYTHON="$(PYTHON)" sh tests/kernels/gpu/sanitize.sh' in makefile
    assert os.access(SCRIPT, os.R_OK)
