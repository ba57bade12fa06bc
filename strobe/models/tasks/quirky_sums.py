"""Quirky sums: is this sum right? Alice answers as it is, Bob the opposite, and someone unnamed is one of the two.

A sequence is a speaker, then problems: `terms` digits, "=", a claimed sum, "?" and the speaker's answer. Claims are
right half of the time, else off by 1 to `spread`. Scored is each "=", with the right sum as target, and each "?", with
the speaker's answer; the last answer is only the target. Under the unnamed speaker the first answer cannot be known and
is not scored, and the others can only by judging the answers before.

After Mallen, Brumley, Kharchenko and Belrose 2023 (Eliciting latent knowledge from quirky language models, arXiv
2312.01037), whose Bob makes a systematic mistake in sums of two numbers. Ours: a Bob who says the opposite, sums of
digits, several problems to a sequence, the sum as a second target (which a small model needs to learn to add), and the
unnamed speaker, who can be known only by judging the answers that are read (the bundled models do not learn that).

Tokens 0 to 9 terms are numbers; then, in this order, "=", "?", "yes", "no", "Alice", "Bob", "Someone".
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int64

from strobe.models.tasks.task import IGNORED, Task, TaskBatch, at_least

Part = Literal["train", "test"]
WORDS = ("=", "?", "yes", "no", "Alice", "Bob", "Someone")
SPEAKERS = ("Alice", "Bob", "Someone")
_DIGITS = 10
# One problem in five is held out, with every order of its digits.
_HELD_OUT = 5


def word(name: str, terms: int = 4) -> int:
    """The token of one of `WORDS`."""
    return 9 * terms + 1 + WORDS.index(name)


def vocabulary(terms: int = 4) -> list[str]:
    """What each token is called."""
    return [*map(str, range(9 * terms + 1)), *WORDS]


def held_out(digits: Int64[np.ndarray, "*batch terms"]) -> Bool[np.ndarray, "*batch"]:
    """Whether a problem is one of the test part: by a hash of its digits in ascending order."""
    places = _DIGITS ** np.arange(digits.shape[-1], dtype=np.uint64)
    key = (np.sort(digits, -1).astype(np.uint64) * places).sum(-1, dtype=np.uint64)
    # Multiplicative hashing, with the odd number next to 2^64 over the golden ratio.
    return (key * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)) % np.uint64(_HELD_OUT) == 0


def generate(
    batch: int,
    rng: np.random.Generator,
    *,
    terms: int = 4,
    problems: int = 3,
    spread: int = 4,
    part: Part = "train",
    speaker: str | None = None,
) -> TaskBatch:
    """Tokens and targets [batch, problems (terms + 4)].

    `part`: problems that are trained on, or those held out. `speaker`: one of `SPEAKERS`, or None for any. ``meta``:
    ``true`` [batch, problems], whether each claim is right; ``lies`` [batch], whether the speaker says the opposite;
    ``off`` [batch, problems], the claim minus the sum; ``last`` [batch], the answer that is only a target.
    """
    at_least(1, batch=batch, spread=spread)
    at_least(2, terms=terms, problems=problems)
    if part not in get_args(Part) or speaker not in (None, *SPEAKERS):
        raise ValueError(
            f"part {part!r} and speaker {speaker!r} were asked for; there are {', '.join(get_args(Part))} and "
            f"{', '.join(SPEAKERS)}"
        )
    digits = _digits(rng, (batch, problems), terms, part)
    total = digits.sum(-1)
    true = rng.random((batch, problems)) < 0.5
    off = np.where(true, 0, _offsets(rng, total, 9 * terms, spread))
    named = rng.integers(len(SPEAKERS), size=batch) if speaker is None else np.full(batch, SPEAKERS.index(speaker))
    lies = np.where(named == 2, rng.random(batch) < 0.5, named == 1)
    answer = np.where(true != lies[:, None], word("yes", terms), word("no", terms))
    equals, ask = (np.full((batch, problems, 1), word(w, terms)) for w in ("=", "?"))
    told = np.concatenate([digits, equals, (total + off)[..., None], ask, answer[..., None]], -1).reshape(batch, -1)
    inputs = np.concatenate([word("Alice", terms) + named[:, None], told[:, :-1]], 1)
    targets = np.full_like(inputs, IGNORED)
    targets[:, terms + 1 :: terms + 4] = total
    targets[:, terms + 3 :: terms + 4] = answer
    targets[named == 2, terms + 3] = IGNORED
    return TaskBatch(inputs, targets, {"true": true, "lies": lies, "off": off, "last": answer[:, -1]})


def _digits(rng: np.random.Generator, shape: tuple[int, int], terms: int, part: Part) -> Int64[np.ndarray, "..."]:
    digits = rng.integers(_DIGITS, size=(*shape, terms))
    while (wrong := held_out(digits) != (part == "test")).any():
        digits[wrong] = rng.integers(_DIGITS, size=(int(wrong.sum()), terms))
    return digits


def _offsets(
    rng: np.random.Generator, total: Int64[np.ndarray, "batch problems"], most: int, spread: int
) -> Int64[np.ndarray, "batch problems"]:
    """Never zero, and never out of 0 to `most`: beyond an end the other sign is taken."""
    off = rng.integers(1, min(spread, most // 2) + 1, size=total.shape) * rng.choice((-1, 1), size=total.shape)
    return np.where((total + off < 0) | (total + off > most), -off, off)


def solve(inputs: Int64[np.ndarray, "batch time"], *, terms: int = 4, **_: object) -> Int64[np.ndarray, "batch time"]:
    """The targets, by adding up and by remembering whether the speaker lied."""
    equals, ask, yes, no, alice, bob, _someone = (word(w, terms) for w in WORDS)
    targets = []
    for row in inputs.tolist():
        lies = {alice: False, bob: True}.get(row[0])
        answers, true, total, claim = [], False, 0, None
        for token in row:
            said = IGNORED
            if token in (yes, no):
                lies = (token == yes) != true
                total, claim = 0, None
            elif token == ask:
                true = claim == total
                said = IGNORED if lies is None else yes if true != lies else no
            elif token == equals:
                said, claim = total, -1
            elif token < equals:
                total, claim = (total + token, None) if claim is None else (total, token)
            answers.append(said)
        targets.append(answers)
    return np.array(targets)


def _chance(*, problems: int = 3, speaker: str | None = None, **_: object) -> float:
    """Always "yes": right for half of the answers, and wrong for every sum."""
    unknown = {None: 1 / len(SPEAKERS), "Someone": 1.0}.get(speaker, 0.0)
    return (problems - unknown) / 2 / (2 * problems - unknown)


TASK = Task(
    name="quirky_sums",
    kind="tokens",
    generate=generate,
    solve=solve,
    size=lambda terms=4, **_: 9 * terms + 1 + len(WORDS),
    chance=_chance,
)
