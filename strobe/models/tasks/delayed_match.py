"""N-DMS, delayed match to sample: is the bit now the one that was seen `window` - 1 steps ago?

As N-parity, it needs a memory of `window` bits, but no computing with them (Khajehabdollahi et al. 2024, arXiv
2309.12927).
"""

import numpy as np
from jaxtyping import Int64

from strobe.models.tasks.task import IGNORED, Task, TaskBatch, at_least


def generate(batch: int, rng: np.random.Generator, *, time: int = 40, window: int = 4) -> TaskBatch:
    """Bits [batch, time]; from position window - 1 on 1 where the bit equals that window - 1 steps before, else 0."""
    at_least(1, batch=batch, time=time)
    at_least(2, window=window)
    if window > time:
        raise ValueError(
            f"a match across {window} bits was asked for in sequences of {time}; no position has that many; shorten "
            f"the "
            "window or lengthen the sequence"
        )
    bits = rng.integers(2, size=(batch, time))
    targets = np.full((batch, time), IGNORED)
    targets[:, window - 1 :] = bits[:, window - 1 :] == bits[:, : time - window + 1]
    return TaskBatch(bits, targets, {})


def solve(
    inputs: Int64[np.ndarray, "batch time"], *, window: int = 4, **settings: int
) -> Int64[np.ndarray, "batch time"]:
    """The targets, by a queue of the bits that may still be asked for."""
    targets = []
    for row in inputs.tolist():
        queue, answers = [], []
        for bit in row:
            queue.append(bit)
            answers.append(int(queue.pop(0) == bit) if len(queue) == window else IGNORED)
        targets.append(answers)
    return np.array(targets)


TASK = Task(
    name="delayed_match",
    kind="tokens",
    generate=generate,
    solve=solve,
    size=lambda **_: 2,
    chance=lambda **_: 0.5,
)
