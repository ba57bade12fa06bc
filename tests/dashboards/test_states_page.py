"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

import time
from pathlib import Path

from cutting import cancelled_at
from page_words import words
from streamlit.testing.v1 import AppTest

from strobe.dashboards import loading, store, work
from strobe.dashboards.jobs import runner

ENTRY = Path(loading.__file__).parent / "entry" / "app.py"


def app(**query) -> AppTest:
    at = AppTest.from_file(str(ENTRY), default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = str(value)
    return at.run().switch_page("../pages/states.py").run()


def test_an_edit_that_is_cancelled_keeps_its_predictions_and_the_texts_so_far(tiny, strobe_home, monkeypatch):
    view = {"model": tiny, "text": "def area(r):", "layer": 1, "position": 4, "new": 6}
    cancelled_at(monkeypatch, work, "edit_state", lambda done, what: what.startswith("continuing") and done == 4)
    before = {j.key for j in runner().jobs()}
    app(**view).button(key="edit-run").click().run()
    (key,) = {j.key for j in runner().jobs()} - before
    for _ in range(1200):
        if runner().get(key).finished:
            break
        time.sleep(0.1)
    assert runner().get(key).state == "done", runner().get(key).error
    result = store.reopen(key)
    assert [len(c) for c in result.continuations] == [2] * 3
    at = app(**view)
    assert not at.exception and "The run was cut short after 2 of 6 new tokens: they are kept" in words(at)
    assert "KL(untouched" in words(at)
