"""Experiments of the literature small enough to be done again here: each trains in minutes and answers with a
`CaseStudy`.

`bundled(name)` opens what one run of ``strobe dynamics case NAME --train`` left; `make(name)` does it again.
"""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from strobe.core.errors import did_you_mean

CASES = {
    "hmm": "a noise-driven network that emits like a hidden Markov model",
    "curricula": "one memory task by two curricula, and the timescales they leave",
    "abrupt": "the flip-flop's fixed points before and after the jump",
    "lorenz": "a chaotic attractor reconstructed",
    "words": "which layers follow the words of S3 and S5",
    "onion": "whether a copied word is kept by direction or by magnitude",
}
"""Name and subject of each."""

_FOLDER = Path(__file__).parent / "bundled"


def make(
    name: str,
    *,
    progress: Callable[[int, int, str], None] | None = None,
    keep: str | Path | None = None,
    **settings: Any,
) -> Any:
    """Do the case study `name` again. `keep`: a folder (made) in which its trainings are kept, so that a study that was
    stopped goes on from there to the same numbers; None keeps nothing. `so_far` opens what it keeps.

    Raises ValueError for an unknown name, and what `progress` raises.
    """
    module = import_module(f"{__name__}.{_known(name)}")
    from strobe.probes.dynamics.kept_run import KeptRun

    study = module.make(run=KeptRun(keep, progress), **settings)
    if settings:
        return study
    # As it is bundled: then the command alone says how it was made.
    decides = study.provenance.settings | {"command": f"strobe dynamics case {name} --train"}
    return replace(study, provenance=replace(study.provenance, settings=decides))


def so_far(name: str, keep: str | Path) -> Any:
    """How far the trainings of the study `name` that the folder `keep` keeps had come, an `UnfinishedStudy`, or None
    where it keeps none."""
    from strobe.probes.dynamics.case_studies import unfinished

    return unfinished.so_far(_known(name), keep)


def bundled_file(name: str) -> Path:
    """The file of the bundled run of `name`. Raises ValueError for an unknown one."""
    return _FOLDER / f"{_known(name)}.safetensors"


def bundled(name: str) -> Any:
    """The bundled run of the case study `name`."""
    from strobe.probes.dynamics.case_studies.result import CaseStudy

    return CaseStudy.load(bundled_file(name))


def _known(name: str) -> str:
    if name not in CASES:
        raise ValueError(f"case study {name!r} was asked for; there are {', '.join(CASES)}{did_you_mean(name, CASES)}")
    return name
