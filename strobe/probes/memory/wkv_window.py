"""RWKV-4's read of a window of tokens: sums of 1, 2, 4, ... tokens put together, each under a maximum of its own.

    wkv_t = (sum_s e^{k_s + (t-1-s) w} v_s + e^{u + k_t} v_t) / (the same without v),    s = t-w+1 .. t-1

(Peng et al. 2023, "RWKV", eq. 16, with the sum cut off.) Nothing is subtracted, so nothing cancels; log2(window) steps.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from strobe.kernels.chunks import work_dtype
from strobe.kernels.wkv.reference import EMPTY

NOTHING = {"k": EMPTY}
"""Signals of a token that weighs nothing; the others are 0."""


class _Sum(NamedTuple):
    """Of tokens that end at each position: weighted values and weights, over e^`top`. [batch, time, channels]."""

    values: Tensor
    weights: Tensor
    top: Tensor


def windowed_wkv(joined: Any, window: int) -> Tensor:
    """wkv_t of the last `window` tokens, t included: [batch, time, channels]; `joined` has `window` more in front."""
    dtype = work_dtype(*joined[:4])
    k, v, w, u = (x.to(dtype) for x in joined[:4])
    before = _last(_Sum(v, torch.ones_like(v), k), window - 1, w)
    # What reaches token t ended at t - 1.
    past = _Sum(*(x[:, window - 1 : -1] for x in before))
    own = _Sum(v[:, window:], torch.ones_like(v[:, window:]), u + k[:, window:])
    both = _add(past, own)
    return both.values / both.weights


def _last(single: _Sum, n: int, w: Tensor) -> _Sum:
    """Sum of the `n` tokens that end at each position, a token losing `w` for each that follows it."""
    found = _Sum(torch.zeros_like(single.values), torch.zeros_like(single.values), torch.full_like(single.top, EMPTY))
    held, power = 0, 1
    while n:
        if n & 1:
            found, held = _add(found, _earlier(single, held, w)), held + power
        n >>= 1
        if n:
            single, power = _add(single, _earlier(single, power, w)), 2 * power
    return found


def _earlier(x: _Sum, by: int, w: Tensor) -> _Sum:
    """`x` as it was `by` tokens ago, decayed since."""
    if not by:
        return x
    values, weights, top = (
        F.pad(y[:, :-by], (0, 0, by, 0), value=e) for y, e in zip(x, (0.0, 0.0, EMPTY), strict=True)
    )
    return _Sum(values, weights, top + by * w)


def _add(x: _Sum, y: _Sum) -> _Sum:
    top = torch.maximum(x.top, y.top)
    a, b = (x.top - top).exp(), (y.top - top).exp()
    return _Sum(a * x.values + b * y.values, a * x.weights + b * y.weights, top)
