"""The kernels of `selective` at the shapes they are compiled for ahead of time: channels of released models."""

from typing import Any

from strobe.kernels.triton.ahead_of_time import Variant
from strobe.kernels.triton_selective import backward, forward
from strobe.kernels.triton_selective.launch import LONGEST, blocks

# Name, channels, state.
SHAPES = (
    ("Mamba 130M", 1536, 16),
    ("Mamba 2.8B", 5120, 16),
)
# Given in the signals' dtype; all other pointers are float32, or int32 where listed. A stays float32 in those models.
_SIGNALS = ("X", "DELTA", "B", "C")
_INT32 = ("SEGMENTS", "KINDS")


def variants() -> list[Variant]:
    """Both kernels at each shape; the scan plain, with the starts kept, and with everything in it; float32 too."""
    found = []
    for shape in SHAPES:
        found += [_scan(shape), _scan(shape, keep=True), _scan(shape, looks=True)]
        found += [_gradient(shape), _gradient(shape, looks=True)]
    return [*found, _scan(SHAPES[0], looks=True, unroll=1), _scan(SHAPES[0], dtype="fp32")]


def _scan(
    shape: tuple[Any, ...], *, looks: bool = False, keep: bool = False, unroll: int = 8, dtype: str = "bf16"
) -> Variant:
    off: dict[str, Any] = {"READERS": None, "VALUES": None, "KINDS": None}
    constants = {
        **({} if looks else off),
        **dict.fromkeys(("CAPTURE", "EDIT", "READ"), looks),
        "KEEP": keep,
        "UNROLL": unroll,
    }
    name = "scan, captures, edits, readers" if looks else "scan, starts kept" if keep else "scan"
    name += ", token by token" if unroll == 1 else ""
    return _variant(shape, name, forward.scan_kernel, constants, dtype)


def _gradient(shape: tuple[Any, ...], *, looks: bool = False) -> Variant:
    constants = {
        **({} if looks else {"READERS": None}),
        **dict.fromkeys(("CAPTURE", "READ"), looks),
        "LONGEST": LONGEST,
    }
    name = "gradients, captures, readers" if looks else "gradients"
    return _variant(shape, name, backward.gradient_kernel, constants, "bf16")


def _variant(shape: tuple[Any, ...], what: str, kernel: Any, given: dict[str, Any], dtype: str) -> Variant:
    name, channels, state = shape
    constants = {"CHANNELS": channels, "STATE": state, **blocks(state), **given}
    plain = (what, dtype) in (("scan", "bf16"), ("scan, starts kept", "bf16"))
    return Variant(
        name=f"{name}: {what}, {dtype}",
        kernel=kernel,
        signature={n: _type(n, dtype) for n in kernel.arg_names if n not in constants},
        constants=constants,
        num_warps=1,
        num_stages=1,
        stack={90: 16, 80: 16} if plain else {},
        why_stack="two to three instructions, at 128 of 255 registers: the compiler's choice" if plain else "",
    )


def _type(argument: str, dtype: str) -> str:
    if not argument.isupper():
        return "i32"
    if argument in _INT32:
        return "*i32"
    return f"*{dtype}" if argument in _SIGNALS else "*fp32"
