"""The kernels of `wkv` at the shapes they are compiled for ahead of time: channels of released models."""

from typing import Any

from strobe.kernels.triton.ahead_of_time import Variant
from strobe.kernels.triton_wkv import kernels
from strobe.kernels.triton_wkv.operator import BLOCK, UNROLL

# Name, channels, dtype of k and v.
SHAPES = (
    ("RWKV-4 169M", 768, "fp32"),
    ("RWKV-4 14B", 5120, "bf16"),
)


def variants() -> list[Variant]:
    """Both kernels at each shape; the scan plain, and with padding, captures, edits and all carries."""
    found = []
    for shape in SHAPES:
        for looks in (False, True):
            off: dict[str, Any] = {} if looks else {"VALUES": None, "KINDS": None, "MASK": None}
            flags = dict.fromkeys(("MASKED", "KEEP", "CAPTURE", "EDIT"), looks)
            name = "scan, padding, captures, edits, readers" if looks else "scan"
            found.append(_variant(shape, name, kernels.scan_kernel, {**off, **flags, "UNROLL": UNROLL}))
        found.append(_variant(shape, "gradients", kernels.gradient_kernel, {"MASKED": True}))
    return found


def _variant(shape: tuple[str, int, str], what: str, kernel: Any, given: dict[str, Any]) -> Variant:
    name, channels, dtype = shape
    constants = {"CHANNELS": channels, "BLOCK": BLOCK, **given}
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
    if argument == "MASK":
        return "*u8"
    return f"*{dtype}" if argument in ("K", "V") else "*fp32"
