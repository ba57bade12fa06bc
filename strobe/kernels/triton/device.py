"""Where a Triton kernel can run: on a CUDA device, or on a CPU in Triton's interpreter, which is for tests."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

# What a kernel takes. Float64 is for the other backends: tensor cores sum in float32.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


# Read once, as Triton reads it when a kernel's module is imported.
_INTERPRETING = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")
_INSTALLED = find_spec("triton") is not None


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return _INTERPRETING


def why_not_on(device: torch.device) -> str | None:
    """Why no kernel can run on `device`, in words; None where one can."""
    if not _INSTALLED:
        return "the package triton is not installed; install strobe[gpu], or take backend='chunked'"
    if device.type == "cuda" or (device.type == "cpu" and interpreting()):
        return None
    return (
        f"the tensors are on {device.type}, and a Triton kernel runs on CUDA; move them there, take backend='chunked', "
        "or, to test a kernel, set TRITON_INTERPRET=1 before strobe is imported"
    )


def why_not_tensors(tensors: dict[str, Tensor | None]) -> str | None:
    """Why a kernel cannot take `tensors` (name to tensor) together, in words; None where it can.

    They have to be on one device and float32, bfloat16 or float16; on a CPU float32, because the interpreter computes
    with the bit patterns of bfloat16 and says nothing.
    """
    given = {name: x for name, x in tensors.items() if x is not None}
    devices = {x.device for x in given.values()}
    if len(devices) > 1:
        places = ", ".join(f"{name} on {x.device}" for name, x in given.items())
        return f"the tensors are on several devices ({places}); move them to one"
    device = next(iter(devices))
    if (reason := why_not_on(device)) is not None:
        return reason
    for name, x in given.items():
        if x.dtype not in DTYPES:
            names = ", ".join(str(d).removeprefix("torch.") for d in DTYPES)
            return (
                f"{name} is {str(x.dtype).removeprefix('torch.')}, and a kernel takes {names}; take backend='chunked'"
            )
        if device.type == "cpu" and x.dtype != torch.float32:
            return f"{name} is {str(x.dtype).removeprefix('torch.')}, which the interpreter gets wrong; give float32"
    return None


def why_not_shapes(given: Mapping[str, tuple[Tensor | None, tuple[int, ...]]]) -> str | None:
    """Why tensors do not fit together, in words, from each one's name, itself and the shape that it has to have; None
    where they do. A kernel takes strides from one of them: of a smaller one it would read what lies behind it."""
    for name, (x, shape) in given.items():
        if x is not None and tuple(x.shape) != tuple(shape):
            return f"{name} is {list(x.shape)}, and beside the other signals it has to be {list(shape)}"
    return None


def launch(kernel: Any, grid: tuple[int, ...], on: torch.device, **arguments: Any) -> None:
    """Run `kernel` on the GPU where its tensors are: Triton takes the current one, which may be another."""
    with torch.cuda.device(on if on.type == "cuda" else -1):
        kernel[grid](**arguments)
