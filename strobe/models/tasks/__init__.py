"""Synthetic tasks with a known answer: generators that need no download, each with a solver that knows the rule.

Targets stand at the position whose output is scored: the target at t is what the model should say having read the
inputs up to and including t. -100 marks a position that is not scored.
"""

from strobe.core.errors import did_you_mean
from strobe.models.tasks import (
    associative_recall,
    copying,
    counting,
    delayed_match,
    flip_flop,
    parity,
    quirky_sums,
    segmented_recall,
    symmetric_group,
    symmetric_group_5,
)
from strobe.models.tasks.supervision import task_batches, task_score
from strobe.models.tasks.task import IGNORED, Task, TaskBatch

_TASKS = {
    task.name: task
    for task in (
        flip_flop.TASK,
        parity.WINDOWED,
        parity.CUMULATIVE,
        symmetric_group.TASK,
        copying.TASK,
        counting.TASK,
        associative_recall.TASK,
        segmented_recall.TASK,
        quirky_sums.TASK,
        symmetric_group_5.TASK,
        delayed_match.TASK,
    )
}


def tasks() -> list[str]:
    """Names of the tasks, in the order of the list above."""
    return list(_TASKS)


def task(name: str) -> Task:
    """The task of that name. Raises ValueError, with the nearest names, where there is none.

    >>> import numpy as np
    >>> task("cumulative_parity").generate(1, np.random.default_rng(0), time=5).targets
    array([[1, 0, 1, 1, 1]])
    """
    if name not in _TASKS:
        raise ValueError(f"task {name!r} was asked for; there are {', '.join(_TASKS)}{did_you_mean(name, _TASKS)}")
    return _TASKS[name]


__all__ = ["IGNORED", "Task", "TaskBatch", "task", "task_batches", "task_score", "tasks"]
