"""What a task is: a generator, a solver that knows the rule, and the score of knowing nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

IGNORED = -100
"""A target that is not scored."""


class TaskBatch(NamedTuple):
    """A batch of sequences and what should be said at each position."""

    inputs: np.ndarray
    """int64 [batch, time], or float32 [batch, time, channels]"""
    targets: np.ndarray
    """the same, with `IGNORED` among the integers"""
    meta: dict[str, Any]
    """what the generator drew on the way, by name"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A synthetic task. Settings are the keyword arguments of `generate`; the three other functions take the same."""

    name: str
    kind: Literal["tokens", "real"]
    """"tokens": integers in, a class out at each scored position; "real": numbers in, numbers out"""
    generate: Callable[..., TaskBatch]
    """generate(batch, rng, **settings)"""
    solve: Callable[..., np.ndarray]
    """solve(inputs, **settings): the targets, by the rule and one position at a time"""
    size: Callable[..., int]
    """size(**settings): token ids are 0..size-1 in inputs and targets; for "real", the number of channels"""
    chance: Callable[..., float]
    """chance(**settings): accuracy of the best constant answer; for "real", its mean squared error"""


def at_least(least: int, **settings: int) -> None:
    """Raise ValueError, naming it, for the first of `settings` below `least`."""
    for name, value in settings.items():
        if value < least:
            raise ValueError(f"{name}={value} was asked for; it must be at least {least}")
