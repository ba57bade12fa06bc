"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

from functools import partial

from cutting import cancelled_at
from page_runs import open_page, run_job
from page_words import words

from strobe.dashboards import store, work

app = partial(open_page, "states")


def test_an_edit_that_is_cancelled_keeps_its_predictions_and_the_texts_so_far(tiny, strobe_home, monkeypatch):
    view = {"model": tiny, "text": "def area(r):", "layer": 1, "position": 4, "new": 6}
    cancelled_at(monkeypatch, work, "edit_state", lambda done, what: what.startswith("continuing") and done == 4)
    result = store.reopen(run_job(app(**view), "edit-run"))
    assert [len(c) for c in result.continuations] == [2] * 3
    at = app(**view)
    assert not at.exception and "The run was cut short after 2 of 6 new tokens: they are kept" in words(at)
    assert "KL(untouched" in words(at)
