"""The static table of kernels at the shapes they are compiled for ahead of time.

Every folder ``strobe/kernels/triton_<kind>`` has a module `variants` with a function ``variants() -> list[Variant]``.
A new folder is found by being there.
"""

from importlib import import_module
from pathlib import Path

from strobe.kernels.triton.ahead_of_time import Variant

_KERNELS = Path(__file__).parent.parent


def variants(folder: Path = _KERNELS) -> list[Variant]:
    """Every variant of every kernel. Imports triton."""
    found = sorted(path.parent.name for path in folder.glob("triton_*/variants.py"))
    return [v for name in found for v in import_module(f"strobe.kernels.{name}.variants").variants()]
