"""What a model has inside where it is about to answer, and after each of the two answers; and what it would answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from strobe.probes.latent_knowledge.problems import Problem, Prompt
from strobe.probes.steering.contrast import Selector, activations, token_row
from strobe.probes.steering.vector import layer_of

Tick = Callable[[int, int, str], None]
# Prompts are short, so that more of them go at once than in steering.
_BATCH = 64


@dataclass(frozen=True)
class Features:
    """One context: by layer, `last` [items, width] at the prompt's last token and `pairs` [items, phrasings, 2, width]
    at the last token of the prompt answered "yes" and "no"; and whether "yes" is `true` [items]."""

    last: dict[int, Float[np.ndarray, "items width"]]
    pairs: dict[int, Float[np.ndarray, "items phrasings 2 width"]]
    true: Bool[np.ndarray, " items"]


def read_features(
    model: Any,
    problems: Sequence[Problem],
    answers: tuple[Prompt, Prompt],
    names: Sequence[str],
    progress: Tick | None = None,
) -> Features:
    """The features of `problems` at the hook points `names`, which are flattened and joined layer by layer.

    Raises ValueError where an answer adds no token to a prompt.
    """
    prompts = [(problem.prompt, *problem.paraphrases) for problem in problems]
    rows = [token_row(model, own[0]) for own in prompts]
    answered = [_answered(model, prompt, answer) for own in prompts for prompt in own for answer in answers]
    read = activations(model, [*rows, *answered], names, Selector("last"), progress, batch=_BATCH)
    last, pairs = {}, {}
    for layer in sorted({layer_of(name) for name in names}):
        fields = [read[name].flatten(1) for name in names if layer_of(name) == layer]
        joined = torch.cat(fields, 1).float().numpy()
        last[layer] = joined[: len(rows)]
        pairs[layer] = joined[len(rows) :].reshape(len(rows), -1, 2, joined.shape[1])
    return Features(last, pairs, np.array([problem.true for problem in problems], dtype=bool))


def read_output(model: Any, problems: Sequence[Problem], answers: tuple[Prompt, Prompt]) -> Float[np.ndarray, " items"]:
    """The log odds (nats) of "yes" against "no" that the model gives after each prompt, at the first token in which the
    two answers differ, after what they have in common.

    Raises ValueError where one answer is the beginning of the other.
    """
    device, rows, odds = next(model.parameters()).device, [], []
    for problem in problems:
        yes, no = (_answered(model, problem.prompt, answer).tolist() for answer in answers)
        same = next((i for i, (a, b) in enumerate(zip(yes, no, strict=False)) if a != b), None)
        if same is None:
            raise ValueError(
                f"of the answers {answers[0]!r} and {answers[1]!r} one is the beginning of the other after "
                f"{problem.prompt!r}; give answers that part"
            )
        rows.append(torch.tensor(yes[:same]))
        odds.append((yes[same], no[same]))
    found = np.empty(len(rows))
    for first in range(0, len(rows), _BATCH):
        here = range(first, min(first + _BATCH, len(rows)))
        logits = _last_logits(model, [rows[i] for i in here], device)
        at = torch.tensor([odds[i] for i in here], device=device)
        both = logits.double().gather(1, at)
        found[first : first + len(here)] = (both[:, 0] - both[:, 1]).cpu().numpy()
    return found


@contextmanager
def weights_permuted(model: Any, seed: int) -> Iterator[None]:
    """`model` with the entries of each of its parameters in random order: nothing it has learned is left but the sizes
    of its weights. As it was when the block ends."""
    kept = [(p, p.detach().clone()) for p in model.parameters()]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for parameter, value in kept:
                order = torch.randperm(value.numel(), generator=generator).to(value.device)
                parameter.copy_(value.flatten()[order].view_as(value))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept:
                parameter.copy_(value)


def _answered(model: Any, prompt: Prompt, answer: Prompt) -> Tensor:
    """The token ids of a prompt and an answer."""
    if isinstance(prompt, str) != isinstance(answer, str):
        raise ValueError(f"the prompt {prompt!r} and the answer {answer!r}: give texts, or token ids, for both")
    row = token_row(model, prompt)
    if isinstance(prompt, str) and isinstance(answer, str):
        whole = token_row(model, prompt + answer)
        # A tokenizer that joins the two would move the end of the prompt.
        if len(whole) <= len(row) or not torch.equal(whole[: len(row)], row):
            raise ValueError(
                f"the answer {answer!r} does not leave the tokens of the prompt {prompt!r} as they are; begin the "
                "answers with a space, or end the prompts without one"
            )
        return whole
    return torch.cat([row, token_row(model, answer)])


def _last_logits(model: Any, rows: Sequence[Tensor], device: Any) -> Tensor:
    """Logits [rows, vocab] after the last token of each of `rows`."""
    length = max(map(len, rows))
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    mask = torch.zeros(len(rows), length, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], mask[i, : len(row)] = row, True
    with torch.no_grad():
        logits = model(tokens.to(device), mask=None if bool(mask.all()) else mask.to(device))
    return logits[torch.arange(len(rows)), mask.sum(1) - 1]


def by_context(
    model: Any,
    contexts: Mapping[str, Sequence[Problem]],
    answers: tuple[Prompt, Prompt],
    names: Sequence[str],
    progress: Tick | None = None,
) -> dict[str, Features]:
    """`read_features` of every context."""
    return {c: read_features(model, problems, answers, names, progress) for c, problems in contexts.items()}
