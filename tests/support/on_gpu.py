"""Problems moved to the GPU, and what a kernel may be off there."""

from typing import Any

import torch

from strobe.core.tolerances import relative_error, tolerance

# By what the signals are given in; what each entry of the table is, it says itself.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def dtype_id(dtype: torch.dtype) -> str:
    """Its name, for a test's."""
    return str(dtype).removeprefix("torch.")


def moved(values: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """The fields of a NamedTuple in `dtype` on the GPU, and in float64 on the CPU what they round to there."""
    rounded = type(values)(*(x if x is None or not x.is_floating_point() else x.to(dtype) for x in values))
    exact = (x if x is None or not x.is_floating_point() else x.double() for x in rounded)
    return type(values)(*(None if x is None else x.cuda() for x in rounded)), type(values)(*exact)


def check(found: dict[str, Any], wanted: dict[str, Any], kind: str, dtype: torch.dtype) -> None:
    """Assert that every tensor of `found` is where `wanted` is, within the table's entry for `kind`."""
    assert found.keys() == wanted.keys()
    for name, x in found.items():
        error, allowed = relative_error(x, wanted[name]), tolerance(kind, dtype)
        assert error <= allowed, f"{name}: {error:.3g}, allowed {allowed:g}"


def weighed(outputs: dict[str, Any]) -> Any:
    """A random weighing of all outputs, the same on every device and in every dtype."""
    generator, loss = torch.Generator().manual_seed(7), torch.zeros(())
    for x in outputs.values():
        loss = loss.to(x.device) + (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)).sum()
    return loss
