"""Autocast and recurrences: a nonlinear recurrence stays in the dtype of its weights.

Under ``torch.autocast("cpu", torch.bfloat16)`` torch's own `lstm` and `rnn_tanh` return a bfloat16 carry (and `gru` a
float32 one), so that a model continued in pieces would round its carry at each cut. Here all three ignore autocast.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def outside_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """`function(signals, ...)` with autocast off, and `signals.x` in the dtype of `signals.R` if autocast was on."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        signals: Any = args[0]
        device = signals.x.device.type
        if not torch.is_autocast_enabled(device):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            signals = signals._replace(x=signals.x.to(signals.R.dtype))
            return function(signals, *args[1:], **kwargs)  # pyright: ignore[reportCallIssue]

    return run
