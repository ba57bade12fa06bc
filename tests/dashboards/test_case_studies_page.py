"""Oracle: what a user would see, read from the app run headless, against the bundled run and one a job has kept."""

import json
from dataclasses import replace
from pathlib import Path

from streamlit.testing.v1 import AppTest

from strobe.dashboards import case_studies_work, loading, store
from strobe.dashboards.jobs import runner
from strobe.probes.dynamics import case_studies

ENTRY = Path(loading.__file__).parent / "entry" / "app.py"


def app(**query) -> AppTest:
    at = AppTest.from_file(str(ENTRY), default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = str(value)
    return at.run().switch_page("../pages/case_studies.py").run()


def words(at: AppTest) -> str:
    return "\n".join(str(e.value) for kind in ("markdown", "caption", "error", "info") for e in at.get(kind))


def titles(at: AppTest) -> list[str]:
    return [json.loads(c.proto.spec)["layout"]["title"]["text"] for c in at.get("plotly_chart")]


def test_each_bundled_study_is_shown_with_its_finding_and_its_link(tiny):
    for name in case_studies.CASES:
        at = app(model=tiny, text="a", study=name)
        assert not at.exception
        study = case_studies.bundled(name)
        assert titles(at) == [study.title]
        assert study.found in words(at)
        # Signs that Markdown would read are escaped in the footer.
        assert f"**Control:** {study.provenance.control}" in words(at).replace("\\", "")


def test_a_run_done_here_is_kept_shown_and_told_from_the_bundled_one(tiny, monkeypatch):
    other = replace(case_studies.bundled("onion"), found="Something else came out here.")
    monkeypatch.setattr(case_studies, "make", lambda name, progress, keep: keep.mkdir(parents=True) or other)
    at = app(model=tiny, text="a", study="onion")
    key = case_studies_work.study_key("onion")
    run_to_its_end(at, key)
    assert runner().get(key).state == "done", runner().get(key).error
    at.run()
    assert "Something else came out here." in words(at)
    assert store.reopen(key) == other
    at.segmented_control(key="study_run onion run done here").set_value("bundled run").run()
    assert "Something else came out here." not in words(at)


def run_to_its_end(at, key):
    at.button(key="study-run").click().run()
    for _ in range(200):
        if runner().get(key).finished:
            break
        at.run()


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
    run_to_its_end(at, key)
    assert runner().get(key).state == "cancelled"
    at.run()
    assert titles(at) == ["Case study hmm, stopped"]
    assert "| noise-driven network, seed 0 | 3 | 6 |" in words(at)
    assert at.button(key="study-run").label == "Go on with it"
    cancel_at.clear()
    run_to_its_end(at, key)
    at.run()
    assert runner().get(key).state == "done", runner().get(key).error
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
