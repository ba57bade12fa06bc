"""Print every section of the benchmarks, and write them to BENCHMARKS.md with ``--write``: ``make bench``.

A section is a file here with a function ``section()`` that returns Markdown; adding one is adding the file. Each runs
in a process of its own, so that no section's memory or caches are another's.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from strobe.core.atomic import write_text
from strobe.core.provenance import versions

HERE = Path(__file__).parent
PAGE = Path("BENCHMARKS.md")


def sections() -> list[str]:
    """Names of the files that have a section; the models' first, as the others are built on them."""
    found = [path.stem for path in HERE.glob("*.py") if re.search(r"^def section\(", path.read_text(), re.MULTILINE)]
    return sorted(found, key=lambda name: (name != "models", name))


def measured(name: str) -> str:
    """What the section called `name` printed. Raises CalledProcessError if it failed."""
    code = f"import torch; torch.set_num_threads(1); import {name}; print({name}.section())"
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    """Run what was asked for, print it, write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write BENCHMARKS.md; with --only, those sections of it")
    parser.add_argument("--only", nargs="+", choices=sections(), metavar="SECTION", help="these alone")
    options = parser.parse_args()
    found = _written(PAGE.read_text()) if options.only and PAGE.is_file() else {}
    for name in options.only or sections():
        part = measured(name)
        found[part.partition("\n")[0]] = part
        print(part, end="\n\n", flush=True)
        if options.write:
            # After each: hours of measuring are not lost to the last section.
            write_text(PAGE, "\n\n".join([_head(), *found.values(), _versions()]) + "\n")


def _written(page: str) -> dict[str, str]:
    """The sections of `page` by their heading."""
    parts = re.split(r"^(?=## )", page.partition("\nVersions: ")[0], flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part.strip() for part in parts}


def _versions() -> str:
    return "Versions: " + ", ".join(f"{name} {version}" for name, version in versions().items()) + "."


def _head() -> str:
    return f"""# Benchmarks

What the sections of `make bench` printed, some of them in calls of their own (`--only`) and on different days. The two
sides of a ratio ran by turns in one run, on one thread of a shared two-core
{platform.machine()} machine without a GPU; times are CPU seconds of the process unless a section says otherwise."""


if __name__ == "__main__":
    main()
