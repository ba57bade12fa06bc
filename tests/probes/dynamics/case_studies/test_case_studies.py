"""Oracle: what the bundled runs say of themselves, each study done again at a size that takes a second, and the run in
one piece for one that was stopped, to the bit.
"""

import numpy as np
import pytest

from strobe.core.result import load_result
from strobe.probes.dynamics import case_studies
from strobe.probes.dynamics.case_studies.leaky import Curriculum
from strobe.probes.dynamics.case_studies.result import CaseStudy
from strobe.probes.dynamics.teacher_forcing import Forcing

SMALL = {
    "hmm": {"steps": 12, "batch": 8, "hidden": 8, "time_steps": 6},
    "curricula": {"curriculum": Curriculum(updates=6, hidden=8, batch=8, check_every=2), "trials": 2, "seeds": 1},
    "abrupt": {"updates": 4, "every": 2, "strengths": (0.0, 0.1), "seeds": 1, "n_initial": 8},
    "lorenz": {
        "forcing": Forcing(updates=6, length=10, hidden=50, watch_every=2),
        "length": 1500,
        "exponent_steps": 20,
        "seeds": 1,
    },
    "words": {"updates": 2, "batch": 2, "problems": ("s3",), "length": 3, "seeds": 1},
    "onion": {"updates": 4, "n": 200, "hidden": 8, "length": 2, "symbols": 3, "seeds": 2, "probe_updates": 10},
}


@pytest.mark.parametrize("name", list(case_studies.CASES))
def test_the_bundled_run_opens_and_says_what_it_is(name):
    study = case_studies.bundled(name)
    assert isinstance(study, CaseStudy)
    assert study.name == name
    assert study.provenance.control
    assert study.seconds < 20 * 60
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
    assert told == sorted(told)
    assert load_result(study.save(tmp_path / "study.safetensors")) == study
    assert set(case_studies.CASES) == set(SMALL)


class Stop(Exception):
    """Carries how many updates were said to be made."""


def stopping_at(nth):
    left = iter(range(nth))

    def tick(done, total, what):
        if next(left, None) is None:
            raise Stop(done)

    return tick


@pytest.mark.parametrize(("name", "nth"), [(n, k) for n in SMALL for k in (1, 3)])
def test_a_study_that_was_stopped_goes_on_to_the_bits_of_one_that_was_not(name, nth, tmp_path):
    whole = case_studies.make(name, **SMALL[name])
    for _ in range(2):
        with pytest.raises(Stop) as stop:
            case_studies.make(name, progress=stopping_at(nth), keep=tmp_path / "kept", **SMALL[name])
    made = case_studies.so_far(name, tmp_path / "kept")
    assert sum(made.made.values()) == stop.value.args[0] > nth
    assert len(made.to_frame()) == sum(made.made.values())
    assert all(made.made[k] <= made.planned[k] for k in made.made)
    parts = case_studies.make(name, keep=tmp_path / "kept", **SMALL[name])
    assert parts.tables == whole.tables
    assert parts.found == whole.found
    for one, other in ((parts.weights, whole.weights), (parts.curves, whole.curves)):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)
    assert load_result(made.save(tmp_path / "made.safetensors")) == made
    assert len(made.figure().data) == len(made.losses)
    assert "goes on from here" in made.card()


def test_trainings_of_other_settings_are_not_gone_on_with(tmp_path):
    with pytest.raises(Stop):
        case_studies.make("onion", progress=stopping_at(1), keep=tmp_path, **SMALL["onion"])
    other = SMALL["onion"] | {"hidden": 9}
    study = case_studies.make("onion", keep=tmp_path, **other)
    assert study.tables == case_studies.make("onion", **other).tables


def test_nothing_kept_is_nothing(tmp_path):
    assert case_studies.so_far("hmm", tmp_path / "none") is None
    assert case_studies.so_far("hmm", tmp_path) is None


def test_an_unknown_study_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="did you mean 'lorenz'"):
        case_studies.bundled("lorentz")


def test_a_curve_of_another_shape_is_refused():
    from dataclasses import replace

    with pytest.raises(ValueError, match="x and y"):
        replace(case_studies.bundled("words"), curves={"one": np.zeros(3)})
