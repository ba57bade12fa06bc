"""Oracle: what the bundled runs say of themselves, and each study done again at a size that takes a second."""

import numpy as np
import pytest

from strobe.core.result import load_result
from strobe.probes.dynamics import case_studies
from strobe.probes.dynamics.case_studies.leaky import Curriculum
from strobe.probes.dynamics.case_studies.result import CaseStudy
from strobe.probes.dynamics.teacher_forcing import Forcing

SMALL = {
    "hmm": {"steps": 2, "batch": 8, "hidden": 8, "time_steps": 6},
    "curricula": {"curriculum": Curriculum(updates=50, hidden=8, batch=8), "trials": 2},
    "abrupt": {"updates": 4, "every": 4, "strengths": (0.0, 0.1), "seeds": 1, "n_initial": 8},
    "lorenz": {"forcing": Forcing(updates=2, length=10, hidden=50), "length": 1500, "exponent_steps": 20},
    "words": {"updates": 1, "batch": 2, "problems": ("s3",), "length": 3},
    "onion": {"updates": 2, "n": 200, "hidden": 8, "length": 2, "symbols": 3},
}


@pytest.mark.parametrize("name", list(case_studies.CASES))
def test_the_bundled_run_opens_and_says_what_it_is(name):
    study = case_studies.bundled(name)
    assert isinstance(study, CaseStudy)
    assert study.name == name
    assert study.provenance.control
    assert study.seconds < 180
    assert any(c.endswith("(control)") for c in study.figure().data and [t.name for t in study.figure().data])
    for table in study.tables:
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
        assert "ontrol" in table["note"] or "exactly" in table["note"]
    assert study.found in study.card()
    assert len(study.to_frame()) == sum(len(c) for c in study.curves.values())


def test_together_they_are_small():
    sizes = [case_studies.bundled_file(name).stat().st_size for name in case_studies.CASES]
    assert sum(sizes) < 1_500_000


@pytest.mark.parametrize("name", list(SMALL))
def test_each_can_be_done_again_with_progress(name, tmp_path):
    told = []
    study = case_studies.make(name, progress=lambda done, total, what: told.append((done, total)), **SMALL[name])
    assert told
    assert all(done <= total for done, total in told)
    assert load_result(study.save(tmp_path / "study.safetensors")) == study
    assert set(case_studies.CASES) == set(SMALL)


def test_an_unknown_study_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="did you mean 'lorenz'"):
        case_studies.bundled("lorentz")


def test_a_curve_of_another_shape_is_refused():
    from dataclasses import replace

    with pytest.raises(ValueError, match="x and y"):
        replace(case_studies.bundled("words"), curves={"one": np.zeros(3)})
