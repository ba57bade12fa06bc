"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

from functools import partial

import pytest
from cutting import cancelled_at
from page_runs import open_page, run_job
from page_words import subtitles, titles, words
from streamlit.testing.v1 import AppTest

from strobe.dashboards import loading, memory_work, store
from strobe.dashboards.jobs import runner

app = partial(open_page, "memory")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Random tokens, so that no test reads the standard library."""
    import numpy as np

    def tokens(model, rows, time, *, seed=0, text=None):
        ids = np.random.default_rng(seed).integers(model.cfg.d_vocab, size=(rows, time))
        return memory_work.LongInput(ids, None, "random tokens")

    monkeypatch.setattr(memory_work, "long_input", tokens)


def run(at: AppTest) -> AppTest:
    run_job(at, "memory-run")
    return at.run()


VIEW = {"mem_time": 60, "mem_rows": 2, "mem_train": 16}


def test_the_carry_is_diagnosed_and_the_link_shows_it_again(tiny):
    view = {"model": tiny, "layer": 1, **VIEW}
    at = run(app(**view))
    assert not at.exception and not at.error
    key = [j.key for j in runner().jobs() if j.key.startswith("memory-")][-1]
    result = store.reopen(key)
    assert result.layers == (0, 1) and result.train_length == 16 and result.time == 60
    assert titles(at) == [
        "Norm along the input, layer 1 (GRU)",
        "Outlier channels, layer 1 (GRU)",
        "How far the carry leaves what training showed",
        "Loss by position",
    ]
    # A nonlinear layer has no retention to draw, a linear one has.
    assert "retention" not in at.segmented_control(key="mem_draw").options
    runner().dismiss(key)
    again = app(**{**view, "layer": 0})
    assert "retention" in again.segmented_control(key="mem_draw").options
    assert titles(again)[0] == "Norm along the input, layer 0 (Mamba2)"
    assert not titles(app(**{**view, "mem_time": 61}))


def test_a_cancelled_run_keeps_what_it_had(tiny):
    from strobe.dashboards.jobs import Cancelled

    def stop(done, total, message):
        if message == "streaming" and done >= 8192:
            raise Cancelled

    settings = {"rows": 2, "time": 30_000, "train_length": 16}
    result = store.reopen(memory_work.run_memory("memory-cut", str(tiny), "carry", settings, stop).stem)
    assert result.time == 8192 and "cut short after 8192 of 30000 tokens" in result.summary()


@pytest.mark.parametrize(
    ("what", "time", "last", "said"),
    [
        # The long reading is done, and 208 is the first whole number of 16 that is 200 or more.
        ("Loss by position", 400, 600, "cut short after 208 of 400 tokens"),
        ("Memory curve", 60, 5, "cut short after 5 of 16 lags"),
        ("Remembrance", 60, 4, "cut short after 4 of"),
    ],
)
def test_a_run_cancelled_in_the_middle_is_shown_as_the_part_it_is(tiny, monkeypatch, what, time, last, said):
    when = lambda done, message: message != "loading the model" and done >= last
    cancelled_at(monkeypatch, memory_work, "run_memory", when)
    at = run(app(model=tiny, layer=1, mem_what=what, **{**VIEW, "mem_time": time}))
    assert not at.exception
    (warned,) = [w.value for w in at.warning]
    assert f"The run was {said}" in warned and "Run again for all" in warned
    assert subtitles(at)[0].startswith(said)
    assert at.button(key="memory-run").label == "Run again"


def test_collapse_is_said_only_where_the_comparison_shows_it(tiny):
    view = {"model": tiny, "mem_what": "Mitigations", "mem_every": 8, **VIEW}
    at = run(app(**view))
    assert not at.exception
    # Accuracy of an untrained model on random tokens does not fall: no collapse.
    assert "No collapse: accuracy" in words(at)
    assert titles(at) == ["Loss by position"]
    key = [j.key for j in runner().jobs() if j.key.startswith("memory-")][-1]
    runs = store.reopen(key).runs
    assert runs[0] == "untouched" and "swap memory every 8" in runs and "norm limited every 8" in runs
    # The GRU's signals know no decay: what does not apply to a layer is left out, not failed on.
    assert not any("decay x" in name for name in runs)


def test_a_model_without_a_recurrence_is_offered_what_applies(transformer):
    at = app(model=transformer, **VIEW)
    assert "no carry to diagnose" in words(at) and "Depth can be its time: see the pages Depth as time" in words(at)
    assert at.segmented_control(key="mem_what").options == ["Loss by position", "Remembrance", "Capacity"]
    at = run(at)
    assert not at.exception and titles(at) == ["Loss by position"]


def test_the_recall_models_tell_the_story_from_their_card():
    at = app(model="recall-t64", **VIEW)
    assert not at.exception
    said = words(at)
    assert "synthetic overwrite task" in said and "no language model" in said
    assert "the paper's law in the size of the state did not come out here (a larger state collapsed less)" in said
    shown = [list(frame.value.columns) for frame in at.dataframe]
    # The family beside it: its own law in words, and the published one labelled as the paper's.
    family = memory_work.family()
    assert family.said("forget")[1:] in said and "is drawn beside ours, and is not ours" in said
    assert titles(at) == ["T_forget: forgets, trained at this length or more"]
    assert titles(app(model="recall-t64", mem_family="T_recall", **VIEW)) == ["T_recall: recalls prompts this long"]
    assert ["numbers in the state", "T_forget (tokens)", "T_recall (tokens)"] in shown
    assert ["at each boundary", "accuracy"] in shown and any("initial carry" in columns for columns in shown)


def test_a_cards_table_is_shown_as_text(monkeypatch):
    picture = "![x](http://tracker/p.png) $a$ **b**"
    table = {"title": f"title {picture}", "note": f"note {picture}", "columns": ["", picture], "rows": [["a", picture]]}
    monkeypatch.setattr(loading, "card", lambda source: {"tables": [table]})
    at = app(model="recall-t64", **VIEW)
    assert not at.exception
    # What is seen is the text; what is sent holds no picture, no formula and no bold of the card's.
    assert f"title {picture}" in words(at) and f"note {picture}" in words(at)
    sent = "\n".join(str(e.value) for kind in ("markdown", "caption") for e in at.get(kind))
    assert not any(mark in sent for mark in ("![x]", "$a$", " **b**"))
