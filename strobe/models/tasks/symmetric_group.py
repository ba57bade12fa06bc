"""The word problem of S3: which permutation have the ones so far made together?

Tokens are the six permutations of (0, 1, 2) in lexicographic order, drawn uniformly. Permutations act from the left,
the newest last: y_t = x_t ∘ y_{t-1}, with (p ∘ q)(i) = p(q(i)). S3 does not commute, so the number of tokens of each
kind does not answer (Merrill, Petty & Sabharwal 2024, arXiv 2404.08819, on which recurrences can follow such words).
"""

from itertools import permutations

import numpy as np
from jaxtyping import Int64

from strobe.models.tasks.task import Task, TaskBatch, at_least

ELEMENTS = tuple(permutations(range(3)))
"""The permutation of each token: token k sends i to ELEMENTS[k][i]."""

# PRODUCT[p, q] is the token of p ∘ q.
PRODUCT = np.array([[ELEMENTS.index(tuple(p[i] for i in q)) for q in ELEMENTS] for p in ELEMENTS])


def generate(batch: int, rng: np.random.Generator, *, time: int = 16) -> TaskBatch:
    """Tokens [batch, time] and the token of the product so far at each position."""
    at_least(1, batch=batch, time=time)
    inputs = rng.integers(len(ELEMENTS), size=(batch, time))
    targets = inputs.copy()
    for t in range(1, time):
        targets[:, t] = PRODUCT[inputs[:, t], targets[:, t - 1]]
    return TaskBatch(inputs, targets, {})


def solve(inputs: Int64[np.ndarray, "batch time"], **settings: int) -> Int64[np.ndarray, "batch time"]:
    """The targets, by following where each of three points goes."""
    targets = []
    for row in inputs.tolist():
        points, answers = [0, 1, 2], []
        for token in row:
            points = [ELEMENTS[token][point] for point in points]
            answers.append(sorted(ELEMENTS).index(tuple(points)))
        targets.append(answers)
    return np.array(targets)


TASK = Task(
    name="s3",
    kind="tokens",
    generate=generate,
    solve=solve,
    size=lambda **_: len(ELEMENTS),
    chance=lambda **_: 1 / len(ELEMENTS),
)
