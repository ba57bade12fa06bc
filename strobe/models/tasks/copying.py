"""Copy: read `length` symbols, then say them again in order while reading nothing.

Token 0 is the cue; symbols are 1..symbols, drawn uniformly. Only the answers are scored.
"""

import numpy as np
from jaxtyping import Int64

from strobe.models.tasks.task import IGNORED, Task, TaskBatch, at_least


def generate(batch: int, rng: np.random.Generator, *, length: int = 8, symbols: int = 8) -> TaskBatch:
    """Tokens and targets [batch, 2 length]: the symbols and as many cues; nothing and the symbols."""
    at_least(1, batch=batch, length=length, symbols=symbols)
    word = rng.integers(1, symbols + 1, size=(batch, length))
    inputs = np.concatenate([word, np.zeros_like(word)], axis=1)
    return TaskBatch(inputs, np.concatenate([np.full_like(word, IGNORED), word], axis=1), {})


def solve(inputs: Int64[np.ndarray, "batch time"], **settings: int) -> Int64[np.ndarray, "batch time"]:
    """The targets, by a queue."""
    targets = []
    for row in inputs.tolist():
        queue, answers = [], []
        for token in row:
            if token:
                queue.append(token)
            answers.append(IGNORED if token else queue.pop(0))
        targets.append(answers)
    return np.array(targets)


TASK = Task(
    name="copy",
    kind="tokens",
    generate=generate,
    solve=solve,
    size=lambda symbols=8, **_: symbols + 1,
    chance=lambda symbols=8, **_: 1 / symbols,
)
