"""Batches as a function of the step, so that a run can stop anywhere and go on without remembering its data."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Integer
from torch import Tensor

from strobe.models.training.config import TrainingConfig


class Batch(NamedTuple):
    """What the model is given and what the loss compares its answer with. Both begin [batch, time, ...]."""

    inputs: Tensor
    targets: Tensor


Batches = Callable[[int], Batch]
"""The batch of each step (from 0); the same step must always give the same batch."""


def random_windows(tokens: Integer[np.ndarray, " n_tokens"], config: TrainingConfig) -> Batches:
    """Windows of ``config.context`` tokens, drawn uniformly for each step by a generator seeded with (seed, step).

    Targets are the tokens that follow. Raises ValueError where `tokens` is too short for one window.
    """
    context, n_starts = config.context, len(tokens) - config.context
    if n_starts < 1:
        raise ValueError(
            f"windows of {context} tokens and the one after were asked for; found {len(tokens)} tokens; "
            "shorten the context or give more tokens"
        )

    def batch(step: int) -> Batch:
        rng = np.random.default_rng((config.seed, step))
        starts = rng.integers(n_starts, size=config.batch_size)
        windows = np.stack([tokens[s : s + context + 1] for s in starts]).astype(np.int64)
        return Batch(torch.from_numpy(windows[:, :-1].copy()), torch.from_numpy(windows[:, 1:].copy()))

    return batch
