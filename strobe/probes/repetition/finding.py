"""Repetition features of a model from texts it has not seen: prompts, loops and held-out rows made here.

The texts are files of Python's standard library that the bundled models were not trained on (`strobe.models.corpus`);
for texts of your own call `repetition_features` with tokens.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from strobe.probes.repetition.feature_result import RepetitionFeatures
from strobe.probes.repetition.features import Tick, repetition_features
from strobe.probes.repetition.looping import LoopText, looping_texts, planted_loops

Loops = Literal["greedy", "planted"]
# Tokens of a prompt.
_PROMPT = 16
_FEWEST = 4


def find_repetition_features(
    model: Any,
    sae: Any,
    *,
    loops: Loops = "greedy",
    n_loops: int = 48,
    n_prompts: int = 16,
    n_held_out: int = 32,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[RepetitionFeatures], None] | None = None,
    **options: Any,
) -> RepetitionFeatures:
    """As `repetition_features` (which `options` go to), with texts from held-out files.

    `loops`: "greedy", those among `n_loops` greedy continuations that loop by themselves; "planted", a line of code
    repeated behind each of `n_loops` prompts. Raises ValueError for a model without a tokenizer, or if fewer than four
    continuations loop.
    """
    if loops not in ("greedy", "planted"):
        raise ValueError(f"loops of kind {loops!r} were asked for; there are 'greedy' and 'planted'")
    if progress is not None:
        progress(0, 1, "making texts that loop")
    prompts = library_rows(model, n_loops, _PROMPT, "valid", seed)
    found = _planted(model, prompts, seed) if loops == "planted" else looping_texts(model, prompts)
    if len(found) < _FEWEST:
        raise ValueError(
            f"{n_loops} prompts of {model.model_name} were continued greedily, and {len(found)} came to loop; "
            f"{_FEWEST} are needed: give loops='planted', or more prompts (n_loops)"
        )
    neutral = library_rows(model, n_prompts, _PROMPT, "valid", seed + 1)
    held_out = library_rows(model, n_held_out, 128, "test", seed)
    return repetition_features(
        model, sae, found, neutral, held_out, seed=seed, progress=progress, partial=partial, **options
    )


def library_rows(
    model: Any, n: int, length: int, split: Literal["valid", "test"], seed: int
) -> Int[Tensor, "n length"]:
    """`n` rows of `length` tokens of held-out library files, each from the beginning of a line drawn at random.

    Raises ValueError for a model without a tokenizer.
    """
    from strobe.models.corpus import split_of, standard_library_documents

    if model.tokenizer is None:
        raise ValueError(
            f"texts were to be made for {model.model_name}, which came without a tokenizer; give token ids to "
            "repetition_features"
        )
    texts = [d.text for d in standard_library_documents()[0] if split_of(d.path) == split]
    generator, rows = torch.Generator().manual_seed(seed), []
    while len(rows) < n:
        text = texts[int(torch.randint(len(texts), (), generator=generator))]
        starts = [0, *(i + 1 for i, c in enumerate(text) if c == "\n")]
        start = starts[int(torch.randint(len(starts), (), generator=generator))]
        # No token is longer than this many characters on average.
        ids = model.tokenizer.encode(text[start : start + 16 * length], add_special_tokens=False)
        if len(ids) >= length:
            rows.append(ids[:length])
    return torch.tensor(rows)


def _planted(model: Any, prompts: Tensor, seed: int) -> list[LoopText]:
    """Each prompt, then a line's worth of tokens from another file over and over."""
    lines = library_rows(model, len(prompts), 8, "test", seed + 2)
    return planted_loops(list(lines), prompts)
