"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_words import words
from streamlit.testing.v1 import AppTest

from strobe.dashboards import loading, steering_work, store
from strobe.dashboards.jobs import runner
from strobe.probes.steering import SteeredText, SteeringSweep

ENTRY = Path(loading.__file__).parent / "entry" / "app.py"
TEXT = "def area(r):\n    return r * 2"


def app(**query) -> AppTest:
    at = AppTest.from_file(str(ENTRY), default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = str(value)
    return at.run().switch_page("../pages/steering.py").run()


def finish(key: str, state: str) -> None:
    for _ in range(1200):
        if runner().get(key).finished:
            break
        time.sleep(0.1)
    assert runner().get(key).state == state, runner().get(key).error


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
    finish(key, "done")
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


def sweep_of(at: AppTest, before: set[str]) -> str:
    at.button(key="sweep-run").click().run()
    (key,) = {j.key for j in runner().jobs()} - before
    return key


def test_a_sweep_that_is_cancelled_keeps_and_shows_what_was_done(tiny, strobe_home, monkeypatch):
    """The work is stopped by the job's own cancel at its third question; what is shown is what the probe kept."""
    view = {"model": tiny, "text": TEXT, "layer": 0, "steer_view": "a sweep", "sweep_questions": 4, "sweep_random": 1}
    whole = steering_work.sweep_vectors

    def cancelled_at_two(key, name, places, settings, tick):
        def watched(done, total, message=""):
            if message.startswith("asking") and done == 2:
                runner().get(key).cancel()
            tick(done, total, message)

        return whole(key, name, places, settings, watched)

    monkeypatch.setattr(steering_work, "sweep_vectors", cancelled_at_two)
    monkeypatch.setattr(steering_work, "_PAIRS", 8)
    at = app(**view)
    assert not at.exception
    key = sweep_of(at, {j.key for j in runner().jobs()})
    finish(key, "cancelled")
    assert store.reopen(key) is None
    part = store.reopen(steering_work.partial_key(key))
    assert isinstance(part, SteeringSweep) and part.vectors == ("residual", "state")
    # Three layers have a residual stream and two a carry; two draws, seven multipliers, two of four questions.
    assert part.progress == (5 * 2 * 7 * 2, 5 * 2 * 7 * 4)
    shown = app(**view)
    assert not shown.exception
    assert "140 of 280 cells are shown, 2 questions" in words(shown) and "Nothing was kept" not in words(shown)
    titles = [json.loads(c.proto.spec)["layout"]["title"]["text"] for c in shown.get("plotly_chart")]
    assert "What steering towards two spaces gains, against what it costs" in titles
    runner().dismiss(key)

    monkeypatch.setattr(steering_work, "sweep_vectors", whole)
    again = app(**view)
    assert "140 of 280 cells" in words(again), "it is kept for another day"
    finish(sweep_of(again, {j.key for j in runner().jobs()}), "done")
    assert store.reopen(key).progress == (280, 280) and store.reopen(steering_work.partial_key(key)) is None
    done = app(**view)
    assert not done.exception and "cancelled" not in words(done)
    runner().dismiss(key)
