"""What a report is about: a model, what it is shown, and how much of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from strobe.dashboards import loading, memory_work

SAMPLE = '''def area(radius):
    """Area of a disc."""
    return 3.14159 * radius ** 2


def volume(radius, height):
    return area(radius) * height
'''
"""What a model of text is shown where no text was given."""
# Tokens of the text that are shown layer by layer.
_SHOWN = 64
# Where a configuration does not say how long the training sequences were.
ASSUMED_LENGTH = 256


@dataclass(frozen=True)
class Subject:
    """A loaded model with what it is shown: `ids` [time], none for a model that reads numbers.

    `train_length`: tokens in a training sequence; `train_length_from`: who says so.
    """

    loaded: loading.Loaded
    ids: tuple[int, ...]
    train_length: int
    train_length_from: str
    seed: int

    @property
    def model(self) -> Any:
        """The model itself."""
        return self.loaded.model

    @property
    def name(self) -> str:
        """What the model was asked for as."""
        return self.loaded.source.name

    @property
    def d_input(self) -> int:
        """How many real numbers the model reads a step; 0 where it reads tokens."""
        return int(getattr(getattr(self.model, "config", None), "d_input", 0) or 0)

    @property
    def reads_text(self) -> bool:
        """Whether the model has a tokenizer, so that library text can be shown to it."""
        return self.model.tokenizer is not None

    @property
    def recurrent(self) -> list[int]:
        """The blocks with a recurrent carry."""
        return list(self.loaded.recurrent)

    @property
    def most_positions(self) -> int | None:
        """How many positions a learned table has; None for no table."""
        return getattr(getattr(self.model, "hf_config", None), "n_positions", None)

    def rows(self, n_tokens: int, time: int) -> np.ndarray:
        """About `n_tokens` fresh tokens [rows, time] of the model's task, or random ones where it has none.

        Rows are shorter where the task's sequences are.
        """
        task = getattr(getattr(self.model, "config", None), "task", None)
        rows = -(-n_tokens // time)
        try:
            return memory_work.long_input(self.model, rows, time, seed=self.seed).inputs
        except ValueError:
            if task is None:
                raise
            # A task whose sequences have a length of their own.
            from strobe.models.tasks import task as task_of

            rng = np.random.default_rng((self.seed, 7))
            one = task_of(task).generate(1, rng).inputs.shape[1]
            return task_of(task).generate(-(-n_tokens // one), rng).inputs[:, :time]


def subject_of(
    loaded: loading.Loaded, *, text: str | None = None, train_length: int | None = None, seed: int = 0
) -> Subject:
    """`loaded` and what it is shown: `text`, else a few lines of Python, else a sequence of its task.

    Raises ValueError for a text that a model without a tokenizer cannot read.
    """
    model = loaded.model
    length, told = _length(model, train_length)
    made = Subject(loaded, (), length, told, seed)
    if text is not None and not made.reads_text:
        raise ValueError(
            f"a text was given, and {model.model_name} came without a tokenizer; leave it out, and the model is shown "
            "sequences of its own"
        )
    if made.d_input:
        return made
    if made.reads_text:
        ids = model.tokenize(SAMPLE if text is None else text)[0][0].tolist()
    else:
        ids = made.rows(_SHOWN, _SHOWN)[0].tolist()
    return Subject(loaded, tuple(ids[:_SHOWN]), length, told, seed)


def _length(model: Any, given: int | None) -> tuple[int, str]:
    if given is not None:
        return given, "as given"
    said = getattr(getattr(model, "config", None), "n_ctx", None) or getattr(model.cfg, "n_ctx", None)
    if not said or said < 1:
        return ASSUMED_LENGTH, "assumed: the configuration does not say it"
    return int(said), "as its configuration says"
