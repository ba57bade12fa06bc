"""What a steered model is asked: a prompt, and two ways to go on of which one shows the behaviour.

The two are compared at the first token where they differ, so that a question means the same under any tokenizer: the
prompt is what their token ids have in common. With "(A)" against "(B)" that is the letter, as in Paulo et al.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Question(NamedTuple):
    """`prompt` + `matching` shows the behaviour and `prompt` + `other` does not."""

    prompt: str
    matching: str
    other: str


class Asked(NamedTuple):
    """A question in token ids: `ids` [time], and the next token of either answer."""

    ids: Tensor
    matching: int
    other: int


def ask(model: Any, questions: Sequence[Question]) -> list[Asked]:
    """`questions` in the token ids of `model`.

    Raises ValueError, naming the question, where there are none, or where two answers share no token before they part
    or never part.
    """
    if not questions:
        raise ValueError("no questions were given; a sweep needs some, and a hundred for narrow intervals")
    return [_ask(model, q, i) for i, q in enumerate(questions)]


def _ask(model: Any, question: Question, index: int) -> Asked:
    rows = [model.tokenize(question.prompt + answer)[0][0].tolist() for answer in (question.matching, question.other)]
    same = next((i for i, (a, b) in enumerate(zip(*rows, strict=False)) if a != b), None)
    if not same or same < 2:
        why = "never part" if same is None else f"part after {same} tokens, and two are needed before"
        raise ValueError(
            f"question {index}: the tokens of {question.prompt + question.matching!r} and of "
            f"{question.prompt + question.other!r} {why}; give a longer prompt or other answers"
        )
    return Asked(torch.tensor(rows[0][:same]), rows[0][same], rows[1][same])
