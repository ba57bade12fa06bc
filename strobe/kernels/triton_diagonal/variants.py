"""The kernels of `diagonal` at the shapes they are compiled for ahead of time: channels of released models."""

from typing import Any

from strobe.kernels.triton.ahead_of_time import Variant
from strobe.kernels.triton_diagonal import kernels
from strobe.kernels.triton_diagonal.operator import BLOCK

# Name, channels, complex, dtype of a and b.
SHAPES = (
    ("RG-LRU in RecurrentGemma 2B", 2560, False, "bf16"),
    ("LRU, complex, 1024 channels", 1024, True, "fp32"),
)


def variants() -> list[Variant]:
    """Both kernels at each shape; the scan plain, and with captures and edits."""
    found = []
    for shape in SHAPES:
        for looks in (False, True):
            off: dict[str, Any] = {} if looks else {"VALUES": None, "KINDS": None}
            name = "scan, captures, edits" if looks else "scan"
            found.append(_variant(shape, name, kernels.scan_kernel, {**off, "CAPTURE": looks, "EDIT": looks}))
        found.append(_variant(shape, "gradients", kernels.gradient_kernel, {}))
    return found


def _variant(shape: tuple[Any, ...], what: str, kernel: Any, given: dict[str, Any]) -> Variant:
    name, channels, imaginary, dtype = shape
    constants = {"CHANNELS": channels, "IMAGINARY": imaginary, "BLOCK": BLOCK, **given}
    return Variant(
        name=f"{name}: {what}, {dtype}",
        kernel=kernel,
        signature={n: _type(n, dtype) for n in kernel.arg_names if n not in constants},
        constants=constants,
        num_warps=1,
        num_stages=1,
    )


def _type(argument: str, dtype: str) -> str:
    if not argument.isupper():
        return "i32"
    if argument in ("SEGMENTS", "KINDS"):
        return "*i32"
    return f"*{dtype}" if argument in ("A", "B") else "*fp32"
