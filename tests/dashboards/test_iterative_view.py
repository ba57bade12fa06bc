"""Oracle: what a user would see, read from the app run headless, against the kept result."""

import json
import time
from base64 import b64decode
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest

from strobe.dashboards import loading, store
from strobe.dashboards.components import iterative_view
from strobe.dashboards.jobs import runner

ENTRY = Path(loading.__file__).parent / "entry" / "app.py"


def app(**query) -> AppTest:
    at = AppTest.from_file(str(ENTRY), default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = str(value)
    return at.run().switch_page("../pages/lens.py").run()


def test_updates_and_gradients_are_compared_as_a_job_and_kept(tiny, monkeypatch):
    monkeypatch.setattr(iterative_view, "N_TOKENS", 128)
    view = {"model": tiny, "text": "def f(x):\n    return x"}
    at = app(**view)
    assert not at.exception
    at.button(key="iterative-run").click().run()
    key = iterative_view.key_of(loading.find(str(tiny)))
    for _ in range(600):
        if (job := runner().get(key)).finished:
            break
        time.sleep(0.1)
    assert job.state == "done", job.error
    kept = store.reopen(key)
    other = app(**view)
    assert not other.exception
    figures = (json.loads(c.proto.spec) for c in other.get("plotly_chart"))
    # A narrow figure folds its title.
    drawn = {f["layout"]["title"]["text"].replace("<br>", " "): f for f in figures}
    assert "Does each block go downhill in the loss?" in drawn
    left_out = drawn["Loss without each block in turn"]["data"][0]["y"]
    np.testing.assert_allclose(np.frombuffer(b64decode(left_out["bdata"]), left_out["dtype"]), kept.deleted)
