"""Tasks as batches for `strobe.models.training.train`, and a score on sequences it has not seen."""

from typing import Any

import numpy as np
import torch
from torch import nn

from strobe.models.tasks.task import IGNORED, Task
from strobe.models.training import Batch, Batches, TrainingConfig, cross_entropy, mean_squared_error

# A third number in the seed: no training step shares its generator with an evaluation.
_HELD_OUT = 1


def task_batches(task: Task, config: TrainingConfig, **settings: Any) -> Batches:
    """A fresh batch of `task` for each step, by a generator seeded with (seed, step).

    ``config.context`` must be the length of the task's sequences under `settings`; `train` checks it.
    """

    def batch(step: int) -> Batch:
        drawn = task.generate(config.batch_size, np.random.default_rng((config.seed, step)), **settings)
        return Batch(torch.from_numpy(drawn.inputs), torch.from_numpy(drawn.targets))

    return batch


def task_score(model: nn.Module, task: Task, *, batch: int = 256, seed: int = 0, **settings: Any) -> dict[str, float]:
    """Loss of `model` on `batch` fresh sequences, and the share of scored positions it answers rightly.

    For a task of kind "real", "accuracy" is the share of outputs with the sign of their target. The model's mode is
    put back.
    """
    drawn = task.generate(batch, np.random.default_rng((seed, 0, _HELD_OUT)), **settings)
    device = next(model.parameters()).device
    inputs, targets = (torch.from_numpy(x).to(device) for x in (drawn.inputs, drawn.targets))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            outputs = model(inputs)
    finally:
        model.train(was_training)
    if task.kind == "real":
        right = outputs.sign() == targets.sign()
        return {"loss": float(mean_squared_error(outputs, targets)), "accuracy": float(right.float().mean())}
    scored = targets != IGNORED
    right = outputs.argmax(-1)[scored] == targets[scored]
    return {"loss": float(cross_entropy(outputs, targets)), "accuracy": float(right.float().mean())}
