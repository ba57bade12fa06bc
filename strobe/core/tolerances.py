"""The one table of how far apart two computations of the same thing may be, by dtype.

An entry is a relative error: the root mean square of the difference over the root mean square of what was expected,
which does not depend on the scale and does not blow up where single numbers are near zero. It is set to a few times the
largest error seen over the tests that use it, against the same computation in float64. Widening one needs a sentence in
the commit that says why the difference is rounding, with a float64 run behind it.
"""

from typing import Any, Literal

# kind -> dtype -> allowed relative RMS error.
TOLERANCES: dict[str, dict[str, float]] = {
    # A carry, a read or a gradient of a scan against the loop over `step`.
    "scan": {"float32": 2e-6, "float64": 1e-12},
    # A Triton kernel on a GPU against the loop in float64 on the rounded signals, by what these are given in. Expected,
    # and not yet measured: nothing ran on a GPU. Three TF32 products carry 22 bits, bfloat16 carries 8 and a chunk
    # rounds to it a few times, a cell at every token; an elementwise scan sums in float32 whatever it reads.
    "kernel, chunks": {"float32": 1e-5, "bfloat16": 2e-2, "float16": 5e-3},
    "kernel, cells": {"float32": 1e-5, "bfloat16": 3e-2, "float16": 5e-3},
    "kernel, elementwise": {"float32": 1e-5, "bfloat16": 1e-5, "float16": 1e-5},
    # Logits of a whole model against an independent implementation.
    "logits": {"float32": 1e-5},
}


def tolerance(kind: str, dtype: Any) -> float:
    """The allowed relative error for `kind` and `dtype` (a torch or numpy dtype, or its name).

    Raises ValueError with what the table has if there is no entry: a tolerance is measured, not guessed.
    """
    name = _dtype_name(dtype)
    if kind not in TOLERANCES or name not in TOLERANCES[kind]:
        known = "; ".join(f"{k}: {', '.join(v)}" for k, v in TOLERANCES.items())
        raise ValueError(f"no tolerance for {kind!r} in {name}; the table has {known}. Measure it and add an entry")
    return TOLERANCES[kind][name]


def relative_error(actual: Any, expected: Any, norm: Literal["rms", "max"] = "rms") -> float:
    """The size of ``actual - expected`` over the RMS of `expected`, in float64; 0 for equal, NaN where either has one.

    `norm` is the root mean square of the difference, or its largest absolute value. Arrays or torch tensors on any
    device. Raises ValueError if the shapes differ (nothing is broadcast) or the arrays are empty.
    """
    import numpy as np

    a, e = _float64(actual), _float64(expected)
    if a.shape != e.shape or a.size == 0:
        raise ValueError(
            f"comparing shapes {a.shape} and {e.shape}; give two arrays of the same shape with numbers in them"
        )
    # Infinities that agree are equal; left in, inf - inf would be NaN.
    same = a == e
    difference = np.abs(np.where(same, 0.0, a) - np.where(same, 0.0, e))
    size = float(difference.max()) if norm == "max" else _rms(difference)
    if size == 0.0:
        return 0.0
    scale = _rms(np.abs(e[np.isfinite(e)]))
    return size / scale if scale > 0 else size * float("inf")


def assert_close(actual: Any, expected: Any, *, kind: str, dtype: Any = None) -> None:
    """Assert that the relative RMS error is within the table's entry for `kind`.

    `dtype` is what the computation ran in; None takes it from `actual`. The message has the error, the limit and where
    the difference is largest.
    """
    import numpy as np

    limit = tolerance(kind, actual.dtype if dtype is None else dtype)
    error = relative_error(actual, expected)
    if error <= limit:
        return
    a, e = _float64(actual), _float64(expected)
    # argmax takes a NaN for the largest.
    gap = np.where(a == e, 0.0, np.abs(a - e))
    worst = tuple(int(i) for i in np.unravel_index(int(np.argmax(gap)), gap.shape))
    raise AssertionError(
        f"{kind}: relative error {error:.3g}, allowed {limit:.3g}; "
        f"largest at {worst}: {a[worst]:.9g}, expected {e[worst]:.9g}"
    )


def _rms(magnitudes: Any) -> float:
    """Root mean square without squaring numbers that would leave float64's range."""
    import numpy as np

    largest = float(magnitudes.max()) if magnitudes.size else 0.0
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.mean((magnitudes / largest) ** 2)))


def _dtype_name(dtype: Any) -> str:
    name = getattr(dtype, "name", None)
    return name if isinstance(name, str) else str(dtype).removeprefix("torch.")


def _float64(values: Any) -> Any:
    import numpy as np

    if hasattr(values, "detach"):
        import torch

        values = values.detach().cpu()
        wide = torch.complex128 if values.is_complex() else torch.float64
        values = values.to(wide).resolve_conj().resolve_neg().numpy()
    values = np.asarray(values)
    return values if np.iscomplexobj(values) else values.astype(np.float64)
