"""What the report knows of an analysis: what it asks, whose it is, and the results it is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from strobe.core.result import Result
from strobe.dashboards.jobs import Tick
from strobe.dashboards.report.subject import Subject


class DoesNotApply(ValueError):
    """The analysis has no meaning for this model; the message says why, as a sentence of the page."""


@dataclass(frozen=True)
class Part:
    """One result of an analysis. `name`: of its file. `title`: its heading. `make`: runs the probe. `draw`: the figures
    of what it made. `make` raises `DoesNotApply` for what only a run can tell.

    `note`: a sentence about what was looked at, where the result cannot say it itself.
    """

    name: str
    title: str
    make: Callable[[Tick], Result]
    draw: Callable[[Any], Sequence[Any]] = lambda result: [result.figure()]
    note: str = ""


@dataclass(frozen=True)
class Analysis:
    """`name` is what a command says; `about`: the method, and what of it is the papers' and what is ours.

    `parts`: what is run for a model; raises `DoesNotApply` where nothing can be. It starts nothing itself.
    """

    name: str
    title: str
    question: str
    about: str
    parts: Callable[[Subject], list[Part]]
