"""Print the table of the GPU kernels, and write it to BENCHMARKS-GPU.md with ``--write``; needs a CUDA device.

Each row is a ratio whose sides ran by turns in this run, medians over turns, on several sets of inputs that are
together larger than the second-level cache. The predictions were written down before anything was measured, and stay
beside what is measured. flash-linear-attention is compared with where it is carried along: see `gpu_rows.carried`.

The rows of a subject are in a module of `gpu_rows`: whole models, the selective scan, the cells, and the chunk kernel.
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_rows import cells, matrix, models, selective
from gpu_rows.measuring import HEAD, Machine, Options

from strobe.core.atomic import write_text
from strobe.core.provenance import versions

# Whole models first: they have to run before flash-linear-attention can be imported.
SUBJECTS = {"models": models, "selective": selective, "cells": cells, "matrix": matrix}
_PAGE = Path("BENCHMARKS-GPU.md")


def table(subjects: list[str], options: Options) -> Iterator[str]:
    """The lines of the table, each as it is measured."""
    yield HEAD
    yield "|---" * 11 + "|"
    for name in SUBJECTS:
        if name in subjects:
            yield from map(str, SUBJECTS[name].rows(options))


def page(lines: list[str], where: str, commit: str) -> str:
    """The table as a Markdown page; `where` is the machine in words."""
    used = ", ".join(f"{name} {version}" for name, version in versions().items())
    m = Machine()
    return (
        f"# GPU benchmarks\n\nWhat `tests/benchmarks/gpu.py` printed on one {where}, at commit {commit}. A ratio is of "
        f"medians, with its quartiles turn by turn and the number of turns. Predictions were written before anything "
        f"was measured. A floor is what that machine cannot go below, estimated from {m.bandwidth / 1e12:g} TB/s, "
        f"{m.flops / 1e12:g} TFLOP/s in bfloat16, {m.exponentials / 1e12:g}e12 exponentials a second and "
        f"{m.step * 1e6:g} µs a dependent step unless other figures were given.\n\n" + "\n".join(lines) + "\n\n"
        f"Versions: {used}.\n"
    )


def parsed(arguments: list[str] | None = None) -> tuple[Any, Options]:
    """What was asked for on the command line, and as `Options`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write BENCHMARKS-GPU.md")
    parser.add_argument("--only", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS), help="these subjects")
    parser.add_argument("--times", type=int, nargs="+", default=list(Options().times), help="lengths of the scans")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=Options().turns)
    parser.add_argument("--bandwidth", type=float, default=Machine().bandwidth, help="bytes a second (H200, estimated)")
    parser.add_argument("--flops", type=float, default=Machine().flops, help="bfloat16 a second (H200, estimated)")
    parser.add_argument("--fla", default=os.environ.get("STROBE_FLA"), metavar="FOLDER", help="see gpu_rows/carried.py")
    parser.add_argument("--commit", default="not given", help="what was measured")
    asked = parser.parse_args(arguments)
    return asked, Options(
        times=tuple(asked.times),
        batch=asked.batch,
        turns=asked.turns,
        machine=Machine(bandwidth=asked.bandwidth, flops=asked.flops),
        fla=asked.fla,
    )


def main() -> None:
    """Measure what was asked for, print it, write it if asked."""
    asked, options = parsed()
    if not torch.cuda.is_available():
        raise SystemExit("this measures a GPU, and there is no CUDA device here; `make bench` measures the CPU")
    lines = []
    for line in table(asked.only, options):
        lines.append(line)
        print(line, flush=True)
        if asked.write:
            # After each: what was measured is not lost to a row that fails.
            write_text(_PAGE, page(lines, torch.cuda.get_device_name(), asked.commit))


if __name__ == "__main__":
    main()
