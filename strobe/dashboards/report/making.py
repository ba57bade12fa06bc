"""Runs the analyses of a report one after the other; what one cannot do is told, and loses none of the others.

With a folder to keep results in, each is written as soon as it is there, and found again by the next run of the same
report.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strobe import __version__
from strobe.core.atomic import write_text
from strobe.core.errors import ResultFileError, did_you_mean
from strobe.core.result import Result, load_result
from strobe.dashboards.jobs import Tick
from strobe.dashboards.problems import is_users
from strobe.dashboards.report.analysis import Analysis, DoesNotApply, Part
from strobe.dashboards.report.plan import ANALYSES
from strobe.dashboards.report.subject import Subject

_MANIFEST = "report.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Done:
    """What became of a part: its result and figures, why it does not apply, or the `error` that it ended in."""

    part: Part
    result: Result | None = None
    figures: Sequence[Any] = ()
    does_not_apply: str = ""
    error: Exception | None = None


@dataclass(frozen=True)
class Section:
    """An analysis of the report: why it does not apply, or what became of its parts. `error`: it could not begin."""

    analysis: Analysis
    does_not_apply: str = ""
    done: list[Done] = field(default_factory=list)
    error: Exception | None = None

    @property
    def errors(self) -> list[Exception]:
        """What went wrong in it."""
        return [e for e in (self.error, *(d.error for d in self.done)) if e is not None]


@dataclass(frozen=True)
class Report:
    """Everything that a page shows: the subject and a section for each analysis asked for."""

    subject: Subject
    sections: list[Section]

    @property
    def failed(self) -> list[Section]:
        """The sections in which something went wrong."""
        return [s for s in self.sections if s.errors]


def make_report(
    subject: Subject,
    *,
    analyses: Sequence[str] | None = None,
    results: str | Path | None = None,
    progress: Tick | None = None,
    say: Say | None = None,
) -> Report:
    """Run `analyses` (names of `ANALYSES`; None for all) on `subject`.

    `results`: a folder, made if it is not there, in which every result is kept and from which those of an earlier run
    are taken. `say` is told what is done, a line at a time. Raises ValueError for an unknown analysis, and for a folder
    that holds another report's results.
    """
    chosen = list(ANALYSES) if analyses is None else list(dict.fromkeys(analyses))
    if unknown := [name for name in chosen if name not in ANALYSES]:
        raise ValueError(
            f"analysis {unknown[0]!r} was asked for; a report has {', '.join(ANALYSES)}"
            f"{did_you_mean(unknown[0], ANALYSES)}"
        )
    folder = None if results is None else _folder(Path(results), subject)
    run = _Run(folder, progress or (lambda done, total, message: None), say or (lambda line: None))
    return Report(subject, [_section(ANALYSES[name], subject, run) for name in chosen])


def in_words(error: Exception) -> str:
    """An error as a page tells it: strobe's own as it is, any other with its type."""
    told = " ".join(str(error).split()) or "no message"
    return told if is_users(error) else f"{type(error).__name__}: {told}"


@dataclass(frozen=True)
class _Run:
    folder: Path | None
    tick: Tick
    say: Say


def _section(analysis: Analysis, subject: Subject, run: _Run) -> Section:
    try:
        parts = analysis.parts(subject)
    except DoesNotApply as why:
        run.say(f"{analysis.name}: does not apply. {why}")
        return Section(analysis, does_not_apply=str(why))
    except Exception as error:  # noqa: BLE001 - one analysis that fails loses none of the others
        run.say(f"{analysis.name}: failed: {in_words(error)}")
        return Section(analysis, error=error)
    return Section(analysis, done=[_done(part, run) for part in parts])


def _done(part: Part, run: _Run) -> Done:
    began = time.monotonic()
    try:
        result, again = _kept(part, run), True
        if result is None:
            result, again = (
                part.make(lambda done, total, message: run.tick(done, total, f"{part.name}: {message}")),
                False,
            )
            if run.folder is not None:
                result.save(_file(run.folder, part))
        done = Done(part, result, part.draw(result))
    except DoesNotApply as why:
        run.say(f"{part.name}: does not apply. {why}")
        return Done(part, does_not_apply=str(why))
    except Exception as error:  # noqa: BLE001 - one analysis that fails loses none of the others
        run.say(f"{part.name}: failed: {in_words(error)}")
        return Done(part, error=error)
    run.say(f"{part.name}: {'kept from an earlier run' if again else f'{time.monotonic() - began:.1f} s'}")
    return done


def _kept(part: Part, run: _Run) -> Result | None:
    if run.folder is None or not _file(run.folder, part).is_file():
        return None
    try:
        return load_result(_file(run.folder, part))
    except ResultFileError as error:
        run.say(f"{part.name}: made again, as the file that was kept cannot be read ({error})")
        return None


def _file(folder: Path, part: Part) -> Path:
    return folder / f"{part.name}.safetensors"


def _folder(folder: Path, subject: Subject) -> Path:
    """`folder`, with a note of whose results it holds. Raises ValueError if they are of another report."""
    wanted = {
        "strobe": __version__,
        "weights": subject.model.weights_hash(),
        "ids": list(subject.ids),
        "train_length": subject.train_length,
        "seed": subject.seed,
    }
    manifest = folder / _MANIFEST
    folder.mkdir(parents=True, exist_ok=True)
    if not manifest.is_file():
        if any(folder.glob("*.safetensors")):
            raise ValueError(
                f"results were to be kept in {folder}, which holds others and no {_MANIFEST} that says of what; give "
                "an empty folder"
            )
        write_text(manifest, json.dumps({"model": subject.name, **wanted}, indent=1))
        return folder
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
        differ = [key for key, value in wanted.items() if found[key] != value]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{manifest} cannot be read ({error}); give an empty folder") from error
    if differ:
        raise ValueError(
            f"results were to be kept in {folder}, which holds those of a report that differs in {', '.join(differ)}; "
            "give another folder, or remove it"
        )
    return folder
