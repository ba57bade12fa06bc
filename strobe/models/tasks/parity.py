"""Parity of the last `window` bits (N-parity), and of all bits so far.

N-parity needs a memory of exactly `window` bits, so that the task's number sets the memory that is asked for
(Khajehabdollahi et al. 2023, arXiv 2309.12927). Cumulative parity needs one bit, for ever.
"""

import numpy as np
from jaxtyping import Int64

from strobe.models.tasks.task import IGNORED, Task, TaskBatch, at_least


def generate_windowed(batch: int, rng: np.random.Generator, *, time: int = 40, window: int = 4) -> TaskBatch:
    """Bits [batch, time] and the parity of the last `window` of them, from position window - 1 on."""
    at_least(1, batch=batch, time=time, window=window)
    if window > time:
        raise ValueError(
            f"the parity of {window} bits was asked for in sequences of {time}; no position has that many; "
            "shorten the window or lengthen the sequence"
        )
    bits = rng.integers(2, size=(batch, time))
    sums = np.concatenate([np.zeros((batch, 1), dtype=np.int64), bits.cumsum(1)], axis=1)
    targets = np.full((batch, time), IGNORED)
    targets[:, window - 1 :] = (sums[:, window:] - sums[:, :-window]) % 2
    return TaskBatch(bits, targets, {})


def solve_windowed(
    inputs: Int64[np.ndarray, "batch time"], *, window: int = 4, **settings: int
) -> Int64[np.ndarray, "batch time"]:
    """The targets, by counting the ones in each window."""
    return np.array(
        [
            [sum(row[t - window + 1 : t + 1]) % 2 if t >= window - 1 else IGNORED for t in range(len(row))]
            for row in inputs.tolist()
        ]
    )


def generate_cumulative(batch: int, rng: np.random.Generator, *, time: int = 40) -> TaskBatch:
    """Bits [batch, time] and the parity of all of them so far."""
    at_least(1, batch=batch, time=time)
    bits = rng.integers(2, size=(batch, time))
    return TaskBatch(bits, bits.cumsum(1) % 2, {})


def solve_cumulative(inputs: Int64[np.ndarray, "batch time"], **settings: int) -> Int64[np.ndarray, "batch time"]:
    """The targets, by flipping one bit."""
    targets = []
    for row in inputs.tolist():
        bit, answers = 0, []
        for x in row:
            bit = 1 - bit if x else bit
            answers.append(bit)
        targets.append(answers)
    return np.array(targets)


WINDOWED = Task(
    name="parity",
    kind="tokens",
    generate=generate_windowed,
    solve=solve_windowed,
    size=lambda **_: 2,
    chance=lambda **_: 0.5,
)
CUMULATIVE = Task(
    name="cumulative_parity",
    kind="tokens",
    generate=generate_cumulative,
    solve=solve_cumulative,
    size=lambda **_: 2,
    chance=lambda **_: 0.5,
)
