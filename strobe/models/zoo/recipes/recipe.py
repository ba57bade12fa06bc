"""What a recipe says: a model, its data and its training."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strobe.models.config import ModelConfig
from strobe.models.training import TrainingConfig

Progress = Callable[[int, int, str], None]
Make = Callable[["Recipe", Path, Path, Progress | None], dict[str, Any]]
"""(recipe, out, runs, on_progress) -> card: writes the model to the folder `out`, and keeps what a stopped run needs to
go on in the folder `runs`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model, its data and its training.

    `make` defaults to a language model on the Python standard library, or to a task with `task_options` where
    `config.task` names one; a recipe that is made otherwise brings its own.
    """

    name: str
    config: ModelConfig
    training: TrainingConfig
    about: str
    task_options: dict[str, Any] = field(default_factory=dict)
    make: Make | None = None
