"""The long work of the case-studies page: a study done again here, kept; and the bundled run, opened."""

import shutil
from pathlib import Path
from typing import Any

from strobe.dashboards import store
from strobe.dashboards.home import home
from strobe.dashboards.jobs import Cancelled, Tick


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


def stopped_key(name: str) -> str:
    """Under which what was made of a study that was cancelled is kept."""
    return f"partial-{study_key(name)}"


def do_again(name: str, tick: Tick) -> Path:
    """Do the study `name` and keep what came out.

    Its trainings are kept on the way: one that was cancelled goes on from where it stood, and leaves how far it had
    come under `stopped_key`. One that ends takes both away.
    """
    from strobe.probes.dynamics import case_studies

    tick(0, 1, "starting")
    folder = home() / "case-studies" / name
    try:
        study = case_studies.make(name, progress=tick, keep=folder)
    except Cancelled:
        if (made := case_studies.so_far(name, folder)) is not None:
            store.keep(stopped_key(name), made)
        raise
    kept = store.keep(study_key(name), study)
    shutil.rmtree(folder)
    store.path_of(stopped_key(name)).unlink(missing_ok=True)
    return kept
