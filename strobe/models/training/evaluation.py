"""Held-out cross-entropy, in nats per token and in bits per byte of source."""

from math import log

import numpy as np
import torch
from jaxtyping import Integer
from torch import nn
from torch.nn import functional


def held_out_nats_per_token(
    model: nn.Module, tokens: Integer[np.ndarray, " n_tokens"], context: int, batch: int = 16
) -> tuple[float, int]:
    """Mean cross-entropy in nats, and the number of tokens it is a mean over.

    `tokens` is cut into windows of `context` that do not overlap; the last may be shorter. Within a window every token
    but the first is scored, given those before it in the window. Logits are scored in float32, outside any autocast,
    and summed in float64; the model's mode is put back. Raises ValueError where there is nothing to score.
    """
    if context < 2 or len(tokens) < 2:
        raise ValueError(
            f"an evaluation of {len(tokens)} tokens in windows of {context} was asked for; "
            "the first token of a window is not scored; give at least two of each"
        )
    n_whole = len(tokens) // context
    whole = np.asarray(tokens[: n_whole * context], dtype=np.int64).reshape(n_whole, context)
    rest = np.asarray(tokens[n_whole * context :], dtype=np.int64)[None]
    chunks = [whole[i : i + batch] for i in range(0, n_whole, batch)] + ([rest] if rest.shape[1] > 1 else [])
    parameter = next(model.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            total = sum(_nats(model, torch.from_numpy(chunk).to(device)) for chunk in chunks)
    finally:
        model.train(was_training)
    n_scored = sum(chunk.shape[0] * (chunk.shape[1] - 1) for chunk in chunks)
    return total / n_scored, n_scored


def _nats(model: nn.Module, windows: torch.Tensor) -> float:
    logits = model(windows[:, :-1]).float()
    losses = functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")
    return float(losses.double().sum())


def evaluate_bits_per_byte(
    model: nn.Module, tokens: Integer[np.ndarray, " n_tokens"], n_bytes: int, context: int, batch: int = 16
) -> float:
    """Bits per byte of held-out `tokens` that spell `n_bytes` bytes, with `context` tokens to a window.

    nats per token x n_tokens / n_bytes / ln 2, where the nats are `held_out_nats_per_token`'s mean: the unscored
    first token of each window counts as an average one, so that a short context is not rewarded for scoring less.
    """
    nats, _ = held_out_nats_per_token(model, tokens, context, batch)
    return nats * len(tokens) / n_bytes / log(2)
