"""Continuations of one prompt that are compared: drawn a token of each in turn, and what a model thinks of each."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor


def draw_each(streams: Sequence[Iterator[Tensor]], drawn: Sequence[list[int]]) -> None:
    """Append to each of `drawn` the next token id of its stream (of one row); a stream that has ended draws no more.

    In rounds, so that texts that are compared have come as far as each other wherever they are stopped.
    """
    for ids, stream in zip(drawn, streams, strict=True):
        if (new := next(stream, None)) is not None:
            ids.append(int(new))


def surprise(model: Any, prompt: Int[Tensor, " prompt"], new: Sequence[int]) -> Float[ndarray, " new"]:
    """Nats of each token of `new` under `model`, given the prompt and those before it."""
    ids = torch.tensor(list(new), dtype=torch.long).to(next(model.parameters()).device)
    whole = torch.cat([prompt.to(ids), ids])[None]
    with torch.no_grad():
        log_p = model(whole[:, :-1])[0, len(prompt) - 1 :].double().log_softmax(-1)
    return -log_p.gather(-1, ids[:, None])[:, 0].cpu().numpy()


def words_of(model: Any, ids: Sequence[int] | Int[Tensor, " time"]) -> list[str]:
    """Each token's text; its number in brackets where the model has no tokenizer."""
    plain = [int(i) for i in ids]
    return [f"[{i}]" if model.tokenizer is None else str(model.to_string([i])) for i in plain]
