"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import runner
from strobe.probes.steering import SteeredText

ENTRY = Path(loading.__file__).parent / "entry" / "app.py"
TEXT = "def area(r):\n    return r * 2"


def app(**query) -> AppTest:
    at = AppTest.from_file(str(ENTRY), default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = str(value)
    return at.run().switch_page("../pages/steering.py").run()


def words(at: AppTest) -> str:
    return "\n".join(str(e.value) for kind in ("markdown", "caption", "error", "info") for e in at.get(kind))


@pytest.mark.parametrize(("layer", "place"), [(0, "state"), (2, "residual stream")])
def test_a_text_is_continued_three_ways_and_the_link_shows_it_again(tiny, strobe_home, layer, place):
    view = {"model": tiny, "text": TEXT, "layer": layer, "steer_at": place, "steer_new": 5}
    at = app(**view)
    assert not at.exception
    assert at.segmented_control(key="steer_at").options == (
        ["residual stream", "state"] if layer == 0 else ["residual stream"]
    )
    before = {j.key for j in runner().jobs()}
    at.button(key="steer-run").click().run()
    keys = {j.key for j in runner().jobs()} - before
    assert len(keys) == 1
    key = keys.pop()
    for _ in range(1200):
        if runner().get(key).finished:
            break
        time.sleep(0.1)
    assert runner().get(key).state == "done", runner().get(key).error
    result = store.reopen(key)
    assert isinstance(result, SteeredText)
    point = {"state": "carry", "residual stream": "resid_post"}[place]
    assert f"add at {point} " in result.steering and f"layers {layer}" in result.steering
    assert [len(c) for c in result.continuations] == [5] * 4
    # An untrained model finds every text equally surprising; told apart, so that a mixed-up column shows.
    result = replace(result, surprise=result.surprise + np.arange(4)[:, None])
    store.keep(key, result)
    runner().dismiss(key)
    other = app(**view)
    assert not other.exception
    assert "Random direction of the same norm" in words(other) and "nats per token" in words(other)
    said = [f"{name} · {result.surprise[i].mean():.2f} nats" for i, name in enumerate(("Unsteered", "Steered"))]
    assert all(text in words(other) for text in said)
    assert "Random direction" not in words(app(**{**view, "steer_new": 6}))
