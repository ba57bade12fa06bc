"""Segmented recall: the same small recall problem again and again, so that the past has to be forgotten.

A segment is `length` tokens: the separator 0, then `pairs` different keys of 1..keys, each with a value, then those
keys again in random order with replacement, each followed by its value. Values are the ids above the keys, drawn with
replacement. Scored is each queried key, with its value as target; where the segment ends on a key, its value is only
the target. Every segment has a map of its own, so a model that was trained on one segment never had to forget and one
that was trained on several did: what a longer sequence does to each is the state-collapse question of Chen et al. 2024
(Stuffed Mamba, arXiv 2410.07145). The task is ours.
"""

import numpy as np
from jaxtyping import Int64

from strobe.models.tasks.task import IGNORED, Task, TaskBatch, at_least

SEPARATOR = 0


def generate(
    batch: int,
    rng: np.random.Generator,
    *,
    segments: int = 1,
    length: int = 64,
    pairs: int = 8,
    keys: int = 16,
    values: int = 32,
) -> TaskBatch:
    """Tokens and targets [batch, segments * length]; ``meta["segment"]`` [segments * length] numbers the segments."""
    _check(batch, segments, length, pairs, keys, values)
    n = batch * segments
    key = 1 + rng.random((n, keys)).argsort(axis=1)[:, :pairs]
    value = 1 + keys + rng.integers(values, size=(n, pairs))
    queries = (length - 2 * pairs) // 2
    asked = rng.integers(pairs, size=(n, queries))
    order = np.concatenate([np.tile(np.arange(pairs), (n, 1)), asked], axis=1)
    said = np.stack([np.take_along_axis(key, order, 1), np.take_along_axis(value, order, 1)], axis=2).reshape(n, -1)
    inputs = np.concatenate([np.full((n, 1), SEPARATOR), said], axis=1)[:, :length]
    targets = np.full((n, length), IGNORED)
    targets[:, 1 + 2 * pairs :: 2] = np.take_along_axis(value, asked, 1)
    shape = (batch, segments * length)
    return TaskBatch(inputs.reshape(shape), targets.reshape(shape), {"segment": np.arange(shape[1]) // length})


def _check(batch: int, segments: int, length: int, pairs: int, keys: int, values: int) -> None:
    at_least(1, batch=batch, segments=segments, pairs=pairs, values=values)
    if pairs > keys:
        raise ValueError(
            f"{pairs} pairs with different keys were asked for; there are keys={keys}; ask for fewer pairs"
        )
    if length < 2 * pairs + 2:
        raise ValueError(
            f"segments of {length} tokens were asked for; the separator and {pairs} pairs take {2 * pairs + 1}, "
            "and a query one more; lengthen the segments"
        )


def solve(
    inputs: Int64[np.ndarray, "batch time"], *, pairs: int = 8, keys: int = 16, **settings: int
) -> Int64[np.ndarray, "batch time"]:
    """The targets, by a dictionary that each separator empties."""
    targets = []
    for row in inputs.tolist():
        known, answers, before = {}, [], SEPARATOR
        for token in row:
            if token == SEPARATOR:
                known = {}
            elif token > keys:
                known[before] = token
            answers.append(known.get(token, IGNORED) if len(known) == pairs else IGNORED)
            before = token
        targets.append(answers)
    return np.array(targets)


TASK = Task(
    name="segmented_recall",
    kind="tokens",
    generate=generate,
    solve=solve,
    size=lambda keys=16, values=32, **_: 1 + keys + values,
    chance=lambda values=32, **_: 1 / values,
)
