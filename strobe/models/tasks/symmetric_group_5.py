"""The word problem of S5 by two generators: the swap (01) and the cycle (01234), which together make all 120 elements.

Inputs are 0 (swap) and 1 (cycle), drawn with equal chance; targets the product so far, as its number among the 120
permutations of (0, 1, 2, 3, 4) in lexicographic order. Permutations act from the left, the newest last: y_t = x_t ∘
y_{t-1}, with (p ∘ q)(i) = p(q(i)). S5 is the smallest symmetric group whose word problem is complete for NC1
(Barrington 1989; Merrill, Petty & Sabharwal 2024, arXiv 2404.08819).
"""

from itertools import permutations

import numpy as np
from jaxtyping import Int64

from strobe.models.tasks.task import Task, TaskBatch, at_least

ELEMENTS = tuple(permutations(range(5)))
"""The permutation of each target: k sends i to ELEMENTS[k][i]."""

GENERATORS = ((1, 0, 2, 3, 4), (1, 2, 3, 4, 0))
"""The permutation of each input."""

_NUMBER = {p: k for k, p in enumerate(ELEMENTS)}
# _AFTER[g, q] is the number of generator g after element q.
_AFTER = np.array([[_NUMBER[tuple(g[i] for i in q)] for q in ELEMENTS] for g in GENERATORS])
_FIRST = np.array([_NUMBER[g] for g in GENERATORS])


def generate(batch: int, rng: np.random.Generator, *, time: int = 16) -> TaskBatch:
    """Inputs [batch, time] and the number of the product so far at each position."""
    at_least(1, batch=batch, time=time)
    inputs = rng.integers(2, size=(batch, time))
    targets = _FIRST[inputs]
    for t in range(1, time):
        targets[:, t] = _AFTER[inputs[:, t], targets[:, t - 1]]
    return TaskBatch(inputs, targets, {})


def solve(inputs: Int64[np.ndarray, "batch time"], **settings: int) -> Int64[np.ndarray, "batch time"]:
    """The targets, by following where each of five points goes."""
    targets = []
    for row in inputs.tolist():
        points, answers = list(range(5)), []
        for token in row:
            points = [GENERATORS[token][point] for point in points]
            answers.append(_NUMBER[tuple(points)])
        targets.append(answers)
    return np.array(targets)


def _chance(time: int = 16, **_: int) -> float:
    """Of the best constant answer over all positions: the likeliest element, each position's distribution followed."""
    now = np.zeros(len(ELEMENTS))
    now[_FIRST] = 0.5
    total = np.zeros(len(ELEMENTS))
    for _position in range(time):
        total += now
        after = np.zeros(len(ELEMENTS))
        for g in range(2):
            np.add.at(after, _AFTER[g], now / 2)
        now = after
    return float(total.max() / time)


TASK = Task(
    name="s5",
    kind="tokens",
    generate=generate,
    solve=solve,
    size=lambda **_: len(ELEMENTS),
    chance=_chance,
)
