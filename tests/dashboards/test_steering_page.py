"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from cutting import cancelled_at
from page_runs import open_page, run_job
from page_words import titles, words

from strobe.dashboards import steering_work, store
from strobe.dashboards.jobs import runner
from strobe.probes.steering import SteeredText, SteeringSweep

app = partial(open_page, "steering")
TEXT = "def area(r):\n    return r * 2"


@pytest.mark.parametrize(("layer", "place"), [(0, "state"), (2, "residual stream")])
def test_a_text_is_continued_three_ways_and_the_link_shows_it_again(tiny, strobe_home, layer, place):
    view = {"model": tiny, "text": TEXT, "layer": layer, "steer_at": place, "steer_new": 5}
    at = app(**view)
    assert not at.exception
    assert at.segmented_control(key="steer_at").options == (
        ["residual stream", "state"] if layer == 0 else ["residual stream"]
    )
    key = run_job(at, "steer-run")
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


def test_a_sweep_that_is_cancelled_keeps_and_shows_what_was_done(tiny, strobe_home, monkeypatch):
    """The work is stopped by the job's own cancel at its third question; what is shown is what the probe kept."""
    view = {"model": tiny, "text": TEXT, "layer": 0, "steer_view": "a sweep", "sweep_questions": 4, "sweep_random": 1}
    monkeypatch.setattr(steering_work, "_PAIRS", 8)
    at = app(**view)
    assert not at.exception
    third_question = lambda done, what: what.startswith("asking") and done == 2
    with monkeypatch.context() as patched:
        cancelled_at(patched, steering_work, "sweep_vectors", third_question)
        key = run_job(at, "sweep-run", "cancelled")
    assert store.reopen(key) is None
    part = store.reopen(steering_work.partial_key(key))
    assert isinstance(part, SteeringSweep) and part.vectors == ("residual", "state")
    # Three layers have a residual stream and two a carry; two draws, seven multipliers, two of four questions.
    assert part.progress == (5 * 2 * 7 * 2, 5 * 2 * 7 * 4)
    shown = app(**view)
    assert not shown.exception
    assert "140 of 280 cells are shown, 2 questions" in words(shown) and "Nothing was kept" not in words(shown)
    assert "What steering towards two spaces gains, against what it costs" in titles(shown)
    runner().dismiss(key)
    again = app(**view)
    assert "140 of 280 cells" in words(again), "it is kept for another day"
    assert run_job(again, "sweep-run") == key
    assert store.reopen(key).progress == (280, 280) and store.reopen(steering_work.partial_key(key)) is None
    done = app(**view)
    assert not done.exception and "cancelled" not in words(done)
    runner().dismiss(key)
