"""Oracle: what a user would see, read from the app run headless, against the probe called by hand."""

from functools import partial

import numpy as np
import pytest
from cutting import cancelled_at
from page_runs import open_page, run_job
from page_words import charts, subtitles, titles, words
from streamlit.testing.v1 import AppTest

from strobe.dashboards import depth_work, loading, store
from strobe.dashboards.jobs import Cancelled, runner
from strobe.probes.depth import BlockRecurrence, depth_dynamics

app = partial(open_page, "depth")
TEXT = "def area(r):\n    return r * 2"


@pytest.fixture(scope="module")
def alike(tiny, tmp_path_factory):
    """Three blocks of one kind, which can share."""
    from strobe.models import HookedLM, ModelConfig, save_checkpoint
    from strobe.models.corpus import load_tokenizer

    folder = tmp_path_factory.mktemp("models") / "alike"
    options = {"attention": {"n_heads": 2}}
    config = ModelConfig(d_model=16, d_vocab=270, layers=["attention"] * 3, mixer_options=options, mlp="none")
    save_checkpoint(HookedLM(config, tokenizer=load_tokenizer(tiny / "tokenizer.json"), name="alike"), folder)
    return folder


def test_the_text_of_the_page_moves_through_depth(tiny):
    at = app(model=tiny, text=TEXT, depth_by="update", depth_k=3)
    assert not at.exception
    shown = charts(at)
    loaded = loading.load(loading.find(str(tiny)))
    ids = loaded.model.tokenize(TEXT)[0].tolist()
    expected = depth_dynamics(loaded.model, ids)
    assert f"{len(ids[0]) - 1} tokens" in subtitles(at)[0]
    own = next(trace for trace in shown[0]["data"] if trace["name"] == "the token's own")["y"]
    np.testing.assert_allclose(_numbers(own), expected.convergence.mean(1), rtol=1e-4)
    assert titles(at)[2] == "Similarity of the blocks by update"
    assert "best 3 contiguous phases" in subtitles(at)[2]
    assert "Nothing can be shared" in words(at)
    assert "another token in the place" in words(at)


def _numbers(values):
    import base64

    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    return np.array(values, dtype=float)


def test_what_does_not_exist_is_put_right_and_said(tiny):
    at = app(model=tiny, text=TEXT, depth_k=40)
    assert not at.exception and "showing 3" in words(at)
    assert "rows need 2 tokens or more" in words(app(model=tiny, text="="))


def test_shared_blocks_are_fitted_kept_and_shown_again(alike):
    view = {"model": alike, "text": TEXT, "depth_steps": 10}
    at = app(**view)
    assert not at.exception
    key = run_job(at, "depth-run")
    assert key == depth_work.key_of(loading.find(str(alike)), {"k": [1, 2], "steps": 10})
    result = store.reopen(key)
    assert isinstance(result, BlockRecurrence) and result.k == (1, 2) and result.steps[-1] == 10
    runner().dismiss(key)
    other = app(**view)
    assert not other.exception
    assert titles(other)[-2:] == [
        "k shared blocks in the place of 3",
        "Where shared blocks lose the model's path",
    ]
    assert "drawn at random instead of following each other" in words(other)


def test_a_cancelled_fit_keeps_the_surrogates_it_finished(alike):
    def stop(done, total, what):
        if what.startswith("2 shared"):
            raise Cancelled

    settings = {"k": [1, 2], "steps": 10}
    source = loading.find(str(alike))
    key = depth_work.key_of(source, settings)
    depth_work.run(key, source.name, settings, stop)
    assert store.reopen(key).k == (1,)
    at = app(model=alike, text=TEXT, depth_steps=10)
    assert not at.exception and "only k = 1 is here" in words(at)


def test_counts_are_those_that_say_something():
    assert depth_work.counts((0, 0, 0, 0)) == [1, 2, 3]
    assert depth_work.counts((0, 1, 0, 0)) == [3]
    assert depth_work.counts((0, 1, 2)) == [] and depth_work.counts((0,)) == []
    assert depth_work.counts((0,) * 48) == [1, 2, 3]


@pytest.fixture
def short_library(monkeypatch):
    """Rows of random tokens stand for the library, and two go through the tiny model at a time."""
    from strobe.probes.depth import dynamics
    from strobe.probes.geometry.sequences import Sequences

    rows = np.random.default_rng(0).integers(3, 270, (8, 9))
    monkeypatch.setattr(dynamics, "library_sequences", lambda *asked: Sequences(rows, np.arange(8)))
    monkeypatch.setattr(dynamics, "_NUMBERS", 2 * 4 * 9 * 16)


def test_library_files_are_followed_in_a_job_that_keeps_what_it_had(tiny, strobe_home, short_library, monkeypatch):
    view = {"model": tiny, "text": TEXT, "depth_of": "library files"}
    key = depth_work.library_key(loading.find(str(tiny)))

    def follow(at: AppTest) -> AppTest:
        assert run_job(at, "depth-library") == key
        return app(**view)

    at = app(**view)
    assert not at.exception and not charts(at)
    with monkeypatch.context() as patched:
        cancelled_at(patched, depth_work, "library", lambda done, what: what.startswith("through") and done == 4)
        at = follow(at)
    assert store.reopen(key).n_tokens == 32
    assert not at.exception and "The run was cut short after 32 of 64 tokens: they are kept" in words(at)
    assert "32 tokens, cut short after" in subtitles(at)[0]
    at = follow(at)
    assert store.reopen(key).n_tokens == 64 and "they are kept" not in words(at) and charts(at)
