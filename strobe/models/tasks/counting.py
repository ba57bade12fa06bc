"""a^n b^n: after the first b the rest of the word is forced, and only a counter knows when it ends.

A word is ``<s> a^n b^n </s>`` with n uniform in 1..most; the target is the next token. Scored are the n positions of
a b: a further b after all but the last, the end after the last. Positions after the word repeat the end and are not
scored. (Gers & Schmidhuber 2001 trained an LSTM on it; Weiss, Goldberg & Yahav 2018 read its counter off the state.)
"""

import numpy as np
from jaxtyping import Int64

from strobe.models.tasks.task import IGNORED, Task, TaskBatch, at_least

BEGIN, A, B, END = range(4)


def generate(batch: int, rng: np.random.Generator, *, most: int = 12) -> TaskBatch:
    """Tokens and targets [batch, 2 most + 1]; ``meta["n"]`` is the n of each word."""
    at_least(1, batch=batch, most=most)
    n = rng.integers(1, most + 1, size=batch)
    position = np.arange(2 * most + 2)
    word = np.select(
        [position == 0, position <= n[:, None], position <= 2 * n[:, None]], [BEGIN, A, B], default=END
    ).astype(np.int64)
    inputs, following = word[:, :-1], word[:, 1:]
    return TaskBatch(inputs.copy(), np.where(inputs == B, following, IGNORED), {"n": n})


def solve(inputs: Int64[np.ndarray, "batch time"], **settings: int) -> Int64[np.ndarray, "batch time"]:
    """The targets, by counting up and down."""
    targets = []
    for row in inputs.tolist():
        count, answers = 0, []
        for token in row:
            count += {A: 1, B: -1}.get(token, 0)
            answers.append((B if count else END) if token == B else IGNORED)
        targets.append(answers)
    return np.array(targets)


# Always saying b is right at all but one of the n scored positions of a word.
TASK = Task(
    name="a^n b^n",
    kind="tokens",
    generate=generate,
    solve=solve,
    size=lambda **_: 4,
    chance=lambda most=12, **_: max((most - 1) / (most + 1), 2 / (most + 1)),
)
