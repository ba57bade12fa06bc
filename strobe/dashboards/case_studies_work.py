"""The long work of the case-studies page: a study done again here, kept; and the bundled run, opened."""

from pathlib import Path
from typing import Any

from strobe.dashboards import store
from strobe.dashboards.jobs import Tick


def studies() -> dict[str, str]:
    """Name and subject of every case study."""
    from strobe.probes.dynamics.case_studies import CASES

    return CASES


def bundled(name: str) -> Any:
    """The bundled run of `name`."""
    from strobe.probes.dynamics import case_studies

    return case_studies.bundled(name)


def study_key(name: str) -> str:
    """The job's key and the result's name."""
    return store.key_of("case", name=name)


def do_again(name: str, tick: Tick) -> Path:
    """Do the study `name` and keep what came out."""
    from strobe.probes.dynamics import case_studies

    tick(0, 1, "starting")
    return store.keep(study_key(name), case_studies.make(name, progress=tick))


def done_here(name: str) -> Any:
    """The run of `name` that was done here, or None. Raises ResultFileError if its file cannot be read."""
    return store.reopen(study_key(name))
