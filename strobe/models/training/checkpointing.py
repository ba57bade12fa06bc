"""Saving and restoring everything that decides the rest of a run.

A checkpoint is one file, written beside its place and renamed, so that a process killed at any moment leaves either
the last checkpoint or the new one. It is read with ``weights_only=True``: tensors, numbers and strings, never code.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from strobe.core.atomic import replacing
from strobe.models.training.batches import Batch
from strobe.models.training.config import TrainingConfig

CHECKPOINT_FILE = "training.pt"
"""Name of the checkpoint within a run's folder."""

_MAY_DIFFER = frozenset({"eval_every", "checkpoint_every"})


def batch_digest(batch: Batch) -> str:
    """SHA-256 of a batch, by which a checkpoint knows its data again."""
    total = hashlib.sha256()
    for tensor in batch:
        total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    config: TrainingConfig,
    progress: dict[str, Any],
) -> None:
    """Write the state of a run after ``progress["step"]`` updates."""
    state = {
        "model": model.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
        "config": asdict(config),
        "progress": progress,
        "torch_rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(
    path: Path, model: nn.Module, optimizers: Sequence[Optimizer], config: TrainingConfig, first_batch: str
) -> dict[str, Any]:
    """Put a run's state back and return its progress.

    Raises ValueError where the checkpoint belongs to a run with other settings or other data (`first_batch` is the
    digest of this run's first batch), and RuntimeError, from torch, where the model's tensors do not match.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)
    mine, theirs = asdict(config), state["config"]
    different = sorted(k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k) and k not in _MAY_DIFFER)
    if different:
        found = ", ".join(f"{k}={theirs.get(k)!r} (now {mine.get(k)!r})" for k in different)
        raise ValueError(
            f"resuming from {path} was asked for; that run had {found}; "
            "use its settings, another folder, or resume=False to start again"
        )
    if state["progress"]["first_batch"] != first_batch:
        raise ValueError(
            f"resuming from {path} was asked for; that run's first batch is not the first batch given now; "
            "give it the same data, another folder, or resume=False to start again"
        )
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    torch.set_rng_state(state["torch_rng"])
    if state["cuda_rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda_rng"])
    return state["progress"]
