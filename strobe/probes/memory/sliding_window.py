"""Reads that see the last few tokens only, by state difference: h_t^(w) = h_t - alpha_{t-w+1:t} h_{t-w}.

Chen et al. 2024 (Stuffed Mamba, arXiv 2410.07145, "sliding window by state difference"). What is subtracted is itself
the memory of a recurrence: the same decays, and each token writing what the token `w` earlier wrote, times all decays
since. So the windowed read is one scan less another, and no carry is kept for later. The product of `w` decays is a
difference of sums of their logarithms, in float64: a running product would underflow for good.

Exact for a memory that decays by itself (the families `decay` and `diagonal`). The delta rule also erases, `selective`
has a decay for every entry of its matrix, wkv divides: there it is refused.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from strobe.kernels import scan
from strobe.kernels.chunks import to_heads
from strobe.probes.memory.scan_signals import changing, refuse_nonlinear


@contextmanager
def windowed_reads(model: Any, layers: list[int], window: int) -> Iterator[None]:
    """While open, the reads of `layers` see `window` tokens, across pieces of one stream; open it anew for another.

    Raises ValueError for a window below 1, or, at once, for a family without a state difference.
    """
    if window < 1:
        raise ValueError(f"a window of {window} tokens was asked for; give 1 or more")
    past = {i: _Past(model.mixers[f"blocks.{i}.mixer"], window) for i in layers}

    def watch(layer: int, family: str, inputs: Any) -> Any:
        past[layer].signals = inputs
        return inputs

    with ExitStack() as stack:
        stack.enter_context(changing(model, watch, layers))
        hooks = [(f"blocks.{i}.mixer.hook_read", past[i].subtract) for i in layers]
        stack.enter_context(model.hooks(fwd_hooks=hooks))
        yield


class _Past:
    """What lies further back than the window: writes that wait, and the memory they enter afterwards."""

    def __init__(self, mixer: Any, window: int) -> None:
        self.family, self.window = mixer.family, window
        self.signals: Any = None
        self._waiting: Any = None
        self._carry: Any = None
        refuse_nonlinear(self.family.name, "a sliding window by state difference")
        if self.family.name not in ("decay", "diagonal"):
            raise ValueError(
                f"a sliding window by state difference was asked for in the family {self.family.name!r}; it exists "
                "where the memory only decays (families decay and diagonal); reset the carry instead"
            )

    def subtract(self, read: Tensor, hook: Any) -> Tensor:
        here, batch = self.signals, read.shape[0]
        if self._waiting is None:
            self._waiting = type(here)(*(x.new_zeros(batch, self.window, *x.shape[2:]) for x in here))
        time = read.shape[1]
        joined = type(here)(*(torch.cat([old, new], 1) for old, new in zip(self._waiting, here, strict=True)))
        self._waiting = type(here)(*(x[:, time:] for x in joined))
        late = (_late_matrix if self.family.name == "decay" else _late_diagonal)(joined, self.window)
        gone = scan(self.family, late, self._carry)
        self._carry = gone.carry
        return read - gone.read.to(read.dtype)


def _window_sums(log_decay: Tensor, window: int) -> Tensor:
    """Sum of the last `window` log decays at each token after the first `window`, in float64."""
    total = log_decay.double().cumsum(1)
    return total[:, window:] - total[:, :-window]


def _late_matrix(joined: Any, window: int) -> Any:
    log_decay = joined.log_decay
    since = _window_sums(log_decay.clamp(min=-700), window).exp().to(joined.v.dtype)
    k, v = joined.k[:, :-window], joined.v[:, :-window]
    if log_decay.ndim == 3:
        v = v * since.unsqueeze(-1)
    else:
        k = to_heads(k, v.shape[2]) * since
    q = joined.q[:, window:]
    q = to_heads(q, v.shape[2]) if k.shape[2] != q.shape[2] else q
    return type(joined)(q=q, k=k, v=v, log_decay=log_decay[:, window:])


def _late_diagonal(joined: Any, window: int) -> Any:
    a, b = joined.a, joined.b
    if a.is_complex() or bool((a < 0).any()):
        raise ValueError(
            "a sliding window by state difference was asked for where decays are negative or complex; their logarithms "
            "cannot be summed in order here; reset the carry instead"
        )
    since = _window_sums(a.double().log().clamp(min=-700), window).exp().to(b.dtype)
    return type(joined)(a=a[:, window:], b=b[:, :-window] * since)
