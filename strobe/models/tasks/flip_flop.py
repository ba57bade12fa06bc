"""3-bit flip-flop: remember the sign of the last pulse on each of three channels (Sussillo & Barak 2013).

At each step and on each channel a pulse of +1 or -1 comes with probability `p`, and always at the first step; otherwise
the input is 0. The target is the last pulse of that channel, this step's included.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32

from strobe.models.tasks.task import Task, TaskBatch, at_least


def generate(batch: int, rng: np.random.Generator, *, time: int = 64, channels: int = 3, p: float = 0.5) -> TaskBatch:
    """Inputs and targets float32 [batch, time, channels], in {-1, 0, 1} and {-1, 1}."""
    at_least(1, batch=batch, time=time, channels=channels)
    if not 0 <= p <= 1:
        raise ValueError(f"p={p} was asked for; it is the probability of a pulse, so between 0 and 1")
    pulse = rng.random((batch, time, channels)) < p
    pulse[:, 0] = True
    sign = rng.integers(2, size=pulse.shape) * 2 - 1
    latest = np.maximum.accumulate(np.where(pulse, np.arange(time)[:, None], 0), axis=1)
    targets = np.take_along_axis(sign, latest, axis=1)
    return TaskBatch((sign * pulse).astype(np.float32), targets.astype(np.float32), {"pulse": pulse})


def solve(
    inputs: Float32[np.ndarray, "batch time channels"], **settings: Any
) -> Float32[np.ndarray, "batch time channels"]:
    """The targets, by holding one number per channel."""
    targets = np.empty_like(inputs)
    held = np.zeros_like(inputs[:, 0])
    for t in range(inputs.shape[1]):
        held = np.where(inputs[:, t] != 0, inputs[:, t], held)
        targets[:, t] = held
    return targets


# Targets are +1 or -1 with equal probability, so the best constant is 0 and its mean squared error 1.
TASK = Task(
    name="flip_flop",
    kind="real",
    generate=generate,
    solve=solve,
    size=lambda channels=3, **_: channels,
    chance=lambda **_: 1.0,
)
