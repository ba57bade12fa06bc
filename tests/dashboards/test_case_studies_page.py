"""Oracle: what a user would see, read from the app run headless, against the bundled run and one a job has kept."""

from dataclasses import replace
from functools import partial

from page_runs import open_page, run_job
from page_words import titles, words

from strobe.dashboards import case_studies_work, store
from strobe.dashboards.jobs import runner
from strobe.probes.dynamics import case_studies

app = partial(open_page, "case_studies")


def test_each_bundled_study_is_shown_with_its_finding_and_its_link(tiny):
    for name in case_studies.CASES:
        at = app(model=tiny, text="a", study=name)
        assert not at.exception
        study = case_studies.bundled(name)
        assert titles(at) == [study.title]
        assert study.found in words(at)
        assert f"**Control:** {study.provenance.control}" in words(at)


def test_a_run_done_here_is_kept_shown_and_told_from_the_bundled_one(tiny, monkeypatch):
    other = replace(case_studies.bundled("onion"), found="Something else came out here.")
    monkeypatch.setattr(case_studies, "make", lambda name, progress, keep: keep.mkdir(parents=True) or other)
    at = app(model=tiny, text="a", study="onion")
    key = run_job(at, "study-run")
    assert key == case_studies_work.study_key("onion")
    at.run()
    assert "Something else came out here." in words(at)
    assert store.reopen(key) == other
    at.segmented_control(key="study_run onion run done here").set_value("bundled run").run()
    assert "Something else came out here." not in words(at)


def test_a_study_that_was_cancelled_shows_how_far_it_was_and_goes_on(tiny, monkeypatch):
    made, key = case_studies.make, case_studies_work.study_key("hmm")
    small = {"steps": 6, "batch": 8, "hidden": 8, "time_steps": 6}
    cancel_at = [3]

    def make(name, progress, keep):
        def tick(done, total, what):
            if done in cancel_at:
                runner().get(key).cancel()
            progress(done, total, what)

        return made(name, progress=tick, keep=keep, **small)

    monkeypatch.setattr(case_studies, "make", make)
    at = app(model=tiny, text="a", study="hmm")
    assert run_job(at, "study-run", "cancelled") == key
    at.run()
    assert titles(at) == ["Case study hmm, stopped"]
    assert "| noise-driven network, seed 0 | 3 | 6 |" in words(at)
    assert at.button(key="study-run").label == "Go on with it"
    cancel_at.clear()
    assert run_job(at, "study-run") == key
    at.run()
    study = store.reopen(key)
    assert study.tables == made("hmm", **small).tables
    assert study.found in words(at)
    assert study.found != case_studies.bundled("hmm").found
    assert store.reopen(case_studies_work.stopped_key("hmm")) is None
    assert at.button(key="study-run").label == "Do it again here"


def test_a_study_that_does_not_exist_falls_back(tiny):
    at = app(model=tiny, text="a", study="nothing")
    assert not at.exception
    assert titles(at)
