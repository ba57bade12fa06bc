"""What a memory still holds of tokens further back than a window, as the read of a recurrence with late writes.

    gone_t = A_t gone_{t-1} + (A_t ... A_{t-w+1}) B_{t-w}

In a family that only decays, the product in front of a late write is exp of a difference of sums of logarithms, in
float64: a running product would underflow for good. Under the delta rule it is `w` products with a vector: the write
k v^T stays one, with another k. After Chen et al. 2024 (arXiv 2410.07145), who need the first alone.

`joined` has the signals of `window` tokens more than are asked for, in front. Each function returns (read of what is
gone, carry to go on from).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from strobe.kernels import scan
from strobe.kernels.chunks import to_heads, work_dtype
from strobe.kernels.decay import DECAY
from strobe.kernels.delta import DELTA
from strobe.kernels.diagonal import DIAGONAL, DiagonalSignals

# exp of it is the smallest float64; a sum of logarithms stays finite.
_LEAST = -700.0


def _of_decay(joined: Any, window: int, carry: Any) -> tuple[Tensor, Any]:
    log_decay = joined.log_decay
    since = _window_sums(log_decay.clamp(min=_LEAST), window).exp().to(joined.v.dtype)
    k, v = joined.k[:, :-window], joined.v[:, :-window]
    if log_decay.ndim == 3:
        v = v * since.unsqueeze(-1)
    else:
        k = to_heads(k, v.shape[2]) * since
    q = joined.q[:, window:]
    q = to_heads(q, v.shape[2]) if k.shape[2] != q.shape[2] else q
    gone = scan(DECAY, type(joined)(q=q, k=k, v=v, log_decay=log_decay[:, window:]), carry)
    return gone.read, gone.carry


def _of_diagonal(joined: Any, window: int, carry: Any) -> tuple[Tensor, Any]:
    a, b = joined.a, joined.b
    since = _window_product(a, window)
    late = b[:, :-window] * since.to(torch.promote_types(since.dtype, b.dtype) if b.is_complex() else since.dtype)
    gone = scan(DIAGONAL, DiagonalSignals(a=a[:, window:], b=late.to(torch.promote_types(a.dtype, b.dtype))), carry)
    return gone.read, gone.carry


def _of_selective(joined: Any, window: int, carry: Any) -> tuple[Tensor, Any]:
    # Each entry of the state has a decay of its own; one at a time, so that [time, channels, state] is never held.
    since = _window_sums(joined.delta, window)
    write = (joined.delta * joined.x)[:, :-window]
    total, carries = torch.zeros_like(write), []
    for n, A in enumerate(joined.A.unbind(1)):
        a = (joined.delta[:, window:] * A).exp()
        b = write * joined.B[:, :-window, n : n + 1] * (since * A.double()).exp().to(write.dtype)
        gone = scan(DIAGONAL, DiagonalSignals(a=a, b=b), None if carry is None else carry[n])
        total = total + gone.read * joined.C[:, window:, n : n + 1]
        carries.append(gone.carry)
    return total, carries


def _of_delta(joined: Any, window: int, carry: Any) -> tuple[Tensor, Any]:
    heads, time = joined.v.shape[2], joined.v.shape[1] - window
    dtype = work_dtype(joined.v)
    decay = joined.log_decay.to(dtype).exp()
    decay = decay.unsqueeze(-1) if decay.ndim == 3 else decay
    left = (-joined.k if joined.a is None else joined.a).to(dtype)
    right = to_heads(joined.b, heads).to(dtype)
    late = joined.k[:, :time].to(dtype)
    for i in range(1, window + 1):
        here = slice(i, i + time)
        late = late * decay[:, here]
        late = late + left[:, here] * (right[:, here] * late).sum(-1, keepdim=True)
    now = slice(window, None)
    signals = type(joined)(
        q=joined.q[:, now], k=late.to(joined.k.dtype), v=joined.v[:, :time], log_decay=joined.log_decay[:, now],
        a=left[:, now].to(joined.k.dtype), b=joined.b[:, now],
    )  # fmt: skip
    gone = scan(DELTA, signals, carry)
    return gone.read, gone.carry


GONE: dict[str, Callable[[Any, int, Any], tuple[Tensor, Any]]] = {
    "decay": _of_decay,
    "diagonal": _of_diagonal,
    "selective": _of_selective,
    "delta": _of_delta,
}
"""By family: (joined, window, carry) -> (read, carry)."""


def _window_sums(x: Tensor, window: int) -> Tensor:
    """Sum of the last `window` numbers at each token after the first `window`, in float64."""
    total = x.double().cumsum(1)
    return total[:, window:] - total[:, :-window]


def _window_product(a: Tensor, window: int) -> Tensor:
    """Product of the last `window` decays, of any sign or phase, in double precision."""
    size = _window_sums(a.abs().double().log().clamp(min=_LEAST), window).exp()
    if a.is_complex():
        return torch.polar(size, _window_sums(a.angle(), window))
    if bool((a < 0).any()):
        negative = _window_sums((a < 0).double(), window).round().remainder(2)
        return size * (1 - 2 * negative)
    return size
