"""Oracle: what a user would see, read from the app run headless, against the result kept by the job or by the probe."""

import shutil
from functools import partial

import numpy as np
import pytest
from cutting import cancelled_at
from page_runs import open_page, run_job
from page_words import words

import strobe
from strobe.core import Provenance
from strobe.dashboards import loading, repetition_work, store
from strobe.dashboards.jobs import Cancelled, runner
from strobe.probes.repetition import GreedyLoop, HeadScores, RepetitionFeatures, text_repetition

app = partial(open_page, "repetition")
TEXT = "a = 1\nb = 2\na = 1\nb = 2\na = 1\nb = 2\n"


def test_a_text_is_measured_as_it_stands(tiny):
    at = app(model=tiny, text=TEXT)
    assert not at.exception
    expected = text_repetition(TEXT, strobe.load(tiny))
    shown = at.dataframe[0].value
    assert shown["rep"].tolist() == pytest.approx(expected.rep.tolist())
    assert f"Rep Score {expected.rep_score:.3f}" in words(at) and "Control:" in words(at)


def test_code_shows_its_longest_run_and_an_answer_its_components(tiny):
    at = app(model=tiny, text=TEXT, repeat="Code")
    assert not at.exception
    row = at.dataframe[0].value.iloc[0]
    assert (row["first_line"], row["last_line"], row["period"], row["copies"]) == (1, 6, 1, 6)
    at = app(model=tiny, text=TEXT, repeat="Attribution", position=3)
    assert not at.exception
    assert at.dataframe[0].value["component"].tolist()[:3] == ["embed", "0 mixer", "0 mlp"]
    at.text_input(key="repeat_other").set_value("no such token").run()
    assert "13 tokens in tiny" in words(at) and not at.exception


@pytest.mark.parametrize(
    ("view", "kind", "said"),
    [("Heads", HeadScores, "is not linear"), ("Greedy loop", GreedyLoop, "oop")],
)
def test_long_work_is_a_job_and_the_link_shows_it_again(tiny, strobe_home, view, kind, said):
    query = {"model": tiny, "text": TEXT, "repeat": view, "repeat_new": 12, "repeat_length": 5}
    at = app(**query)
    assert not at.exception and not at.dataframe
    key = run_job(at, "repeat-run")
    result = store.reopen(key)
    assert isinstance(result, kind) and said in result.summary()
    runner().dismiss(key)
    other = app(**query)
    assert not other.exception
    assert len(other.dataframe[0].value) == len(result.to_frame())
    assert result.summary() in words(other)


def features() -> RepetitionFeatures:
    rng = np.random.default_rng(0)
    scores = np.stack([np.full((2, 3), 0.2), np.full((2, 3), 0.1)])
    scores[0, 1] = 0.7
    return RepetitionFeatures(
        hook_name="blocks.0.hook_resid_post",
        features=np.array([7, 4]),
        ranked_by=["delta", "projection"],
        ordinary=np.array([1, 2]),
        **{name: rng.random(9).astype(np.float32) for name in ("delta", "projection", "density", "largest")},
        base_scores=np.full((2, 3), 0.3),
        scores=scores,
        ordinary_scores=np.full((2, 2, 3), 0.25),
        texts=["plain text", "again again", "other text"],
        loop_scores=rng.random((2, 3, 4)),
        held_out_loss=rng.random((3, 5)),
        provenance=Provenance(model="tiny", control="ordinary features"),
    )


def test_features_that_came_with_the_model_are_opened(tiny, tmp_path):
    model = shutil.copytree(tiny, tmp_path / "with-features")
    features().save(model / repetition_work.FEATURES_FILE)
    at = app(model=model, text=TEXT, repeat="Features")
    assert not at.exception
    table = at.dataframe[-1].value
    assert table["feature"].tolist() == [7, 4] and table["confirmed"].tolist() == [False, True]
    assert "1 of 2 candidates confirmed: 4" in words(at)
    assert at.dataframe[0].value["continuation"].tolist() == ["plain text", "again again", "other text"]


def test_a_cancelled_search_keeps_what_it_found(tiny, strobe_home, monkeypatch):
    from strobe.probes import repetition
    from strobe.probes.sae import SparseAutoencoder

    found = features()

    def stopped(model, sae, *, progress, partial, **settings):
        partial(found)
        progress(1, 2, "on")
        raise Cancelled

    monkeypatch.setattr(repetition, "find_repetition_features", stopped, raising=False)
    monkeypatch.setattr(SparseAutoencoder, "bundled", classmethod(lambda cls, name: None))
    source = loading.find(str(tiny))
    key = repetition_work.repetition_key("features", source, {"n_candidates": 2})
    repetition_work.analyse(key, "features", source.name, {"n_candidates": 2}, lambda *_: None)
    assert store.reopen(key) == found


def test_a_model_without_an_autoencoder_says_so(tiny, strobe_home):
    at = app(model=tiny, text=TEXT, repeat="Features")
    run_job(at, "repeat-run", "failed")
    at.run()
    assert "bundled: none" in words(at) and not at.exception


def test_more_copies_than_the_page_goes_to_are_refused(tiny):
    at = app(model=tiny, text="a = 1\n" * 100, repeat="Reinforcement", repeat_copies=200)
    assert not at.exception and "this page goes to 16384" in words(at)
    assert not [b for b in at.button if b.key == "repeat-run"]


@pytest.mark.parametrize(
    ("view", "when", "said"),
    [
        ("Heads", lambda done, what: what == "scoring block 2", "2 of 3 blocks"),
        ("Greedy loop", lambda done, what: what.startswith("continuing") and done == 9, "9 of 12 new tokens"),
        ("Reinforcement", lambda done, what: what.startswith("repeating") and done >= 512, "copies of the first"),
    ],
)
def test_a_run_that_is_cancelled_keeps_and_shows_what_it_had(tiny, strobe_home, monkeypatch, view, when, said):
    query = {"model": tiny, "text": TEXT, "repeat": view, "repeat_new": 12, "repeat_length": 5, "repeat_copies": 40}
    with monkeypatch.context() as patched:
        cancelled_at(patched, repetition_work, "analyse", when)
        result = store.reopen(key := run_job(app(**query), "repeat-run"))
    assert said in result.partial and result.partial.startswith("cut short after ")
    at = app(**query)
    assert not at.exception and f"The run was {result.partial}: they are kept" in words(at)
    assert len(at.dataframe[0].value) == len(result.to_frame())
    runner().dismiss(key)
    whole = store.reopen(run_job(at, "repeat-run"))
    assert not whole.partial
    assert "they are kept" not in words(app(**query))
