"""Multi-query associative recall, dense: say the value of every key that was seen before.

Each sequence draws a map from `keys` keys to `values` values, then `pairs` keys with replacement, each followed by its
value. Tokens 0..keys-1 are keys, the rest values. Scored is every key that is not the first of its kind, with its value
as target. The task is Arora et al. 2023 (Zoology, arXiv 2312.04927) without their gaps and with many more scored
positions; that variant is ours, and small models learn it on a CPU.
"""

import numpy as np
from jaxtyping import Int64

from strobe.models.tasks.task import IGNORED, Task, TaskBatch, at_least


def generate(batch: int, rng: np.random.Generator, *, keys: int = 8, values: int = 8, pairs: int = 16) -> TaskBatch:
    """Tokens and targets [batch, 2 pairs]; ``meta["map"]`` [batch, keys] is the value token of each key."""
    at_least(1, batch=batch, keys=keys, values=values)
    at_least(2, pairs=pairs)
    value_of = keys + rng.integers(values, size=(batch, keys))
    key = rng.integers(keys, size=(batch, pairs))
    value = np.take_along_axis(value_of, key, axis=1)
    earlier = np.tril(np.ones((pairs, pairs), dtype=bool), k=-1)
    seen = ((key[:, :, None] == key[:, None, :]) & earlier).any(axis=2)
    inputs = np.stack([key, value], axis=2).reshape(batch, 2 * pairs)
    targets = np.stack([np.where(seen, value, IGNORED), np.full_like(value, IGNORED)], axis=2)
    return TaskBatch(inputs, targets.reshape(batch, 2 * pairs), {"map": value_of})


def solve(inputs: Int64[np.ndarray, "batch time"], **settings: int) -> Int64[np.ndarray, "batch time"]:
    """The targets, by a dictionary."""
    targets = []
    for row in inputs.tolist():
        known, answers = {}, []
        for key, value in zip(row[::2], row[1::2], strict=True):
            answers += [known.get(key, IGNORED), IGNORED]
            known[key] = value
        targets.append(answers)
    return np.array(targets)


TASK = Task(
    name="associative_recall",
    kind="tokens",
    generate=generate,
    solve=solve,
    size=lambda keys=8, values=8, **_: keys + values,
    chance=lambda values=8, **_: 1 / values,
)
