"""Oracle: what a user would see, read from the app run headless, against the kept result."""

from base64 import b64decode
from functools import partial

import numpy as np
from page_runs import open_page, run_job
from page_words import charts, titles

from strobe.dashboards import loading, store
from strobe.dashboards.components import iterative_view

app = partial(open_page, "lens")


def test_updates_and_gradients_are_compared_as_a_job_and_kept(tiny, monkeypatch):
    monkeypatch.setattr(iterative_view, "N_TOKENS", 128)
    view = {"model": tiny, "text": "def f(x):\n    return x"}
    at = app(**view)
    assert not at.exception
    key = run_job(at, "iterative-run")
    assert key == iterative_view.key_of(loading.find(str(tiny)))
    kept = store.reopen(key)
    other = app(**view)
    assert not other.exception
    drawn = dict(zip(titles(other), charts(other), strict=True))
    assert "Does each block go downhill in the loss?" in drawn
    left_out = drawn["Loss without each block in turn"]["data"][0]["y"]
    np.testing.assert_allclose(np.frombuffer(b64decode(left_out["bdata"]), left_out["dtype"]), kept.deleted)
