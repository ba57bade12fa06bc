"""Texts that run into a loop: a model's own greedy continuations, kept where they do."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from strobe.probes.lens.readout import evaluating
from strobe.probes.repetition.period import tail_loop


class LoopText(NamedTuple):
    """Token ids of a prompt and a continuation. The first turn begins at `onset`; from ``repeats`` = onset + period on,
    every token is the one `period` before it."""

    tokens: Int[Tensor, " time"]
    onset: int
    period: int

    @property
    def repeats(self) -> int:
        """Where the second turn, and with it the repetition, begins."""
        return self.onset + self.period


def looping_texts(
    model: Any, prompts: Int[Tensor, "batch time"], *, max_new_tokens: int = 128, window: int = 30, min_before: int = 8
) -> list[LoopText]:
    """Greedy continuations of `prompts` that end in a loop, with `min_before` tokens before it repeats and `window`
    after. A list without any is an answer: this model does not loop on these."""
    with evaluating(model):
        whole = model.generate(prompts, max_new_tokens, temperature=0.0, stop_at_eos=False)
    found = []
    for row in whole:
        loop = tail_loop(row.tolist())
        if loop is not None and min_before <= loop.onset + loop.period <= len(row) - window:
            found.append(LoopText(row.cpu(), loop.onset, loop.period))
    return found


def planted_loops(
    sentences: Sequence[Int[Tensor, " time"]], before: Int[Tensor, "n_sentences n_before"], *, window: int = 30
) -> list[LoopText]:
    """Each sentence repeated behind its row of `before`, until `window` tokens are repeats."""
    found = []
    for sentence, prefix in zip(sentences, before, strict=True):
        copies = 2 + -(-window // len(sentence))
        tokens = torch.cat([prefix.cpu(), sentence.cpu().repeat(copies)])
        found.append(LoopText(tokens, len(prefix), len(sentence)))
    return found
