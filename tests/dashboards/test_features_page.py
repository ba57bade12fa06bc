"""Oracle: what a user would see, read from the app run headless, against the results that its jobs kept."""

from functools import partial

import pytest
from cutting import cancelled_at
from page_runs import open_page, run_job
from page_words import words

from strobe.dashboards import features_work, loading, store
from strobe.probes.sae import FeatureAtlas, FeaturePlay, SaeConfig, train_sae

app = partial(open_page, "features")
TEXT = "def area(r):\n    return r * 2"


@pytest.fixture(autouse=True)
def short_library(monkeypatch):
    """A few thousand tokens stand for the library, which a tokenizer of 270 would take a minute to read."""
    text = "".join(f"def f{i}(a, b):\n    return a * {i} + self.b[{i % 7}]\n\n" for i in range(60))
    monkeypatch.setattr(features_work, "python_text", lambda loaded: loaded.model.tokenize(text)[0][0])


@pytest.fixture(scope="module")
def sae(tiny, tmp_path_factory):
    """The folder of an autoencoder of the tiny model, trained for a moment."""
    loaded = loading.load(loading.find(str(tiny)))
    config = SaeConfig(d_sae=24, k=4, tokens=640, batch=64, buffer=128, context=16)
    made, _ = train_sae(loaded.model, TEXT * 40, "blocks.1.hook_resid_post", config=config)
    return made.save(tmp_path_factory.mktemp("sae") / "s")


def test_features_are_read_once_then_searched_chosen_and_turned_up(tiny, sae, strobe_home):
    view = {"model": tiny, "text": TEXT, "sae": sae, "atlas_tokens": 2048, "feature_new": 4, "position": 2}
    at = app(**view)
    assert not at.exception and not at.error
    assert "topk · 24 features, 4 active a token" in words(at)
    atlas = store.reopen(run_job(at, "atlas-run"))
    assert isinstance(atlas, FeatureAtlas)
    feature = int(atlas.density.argmax())
    at = app(**view, feature=feature, feature_token="r")
    assert not at.exception
    assert [m.value for m in at.metric][:2] == [
        f"{atlas.density[feature]:.3%} of tokens",
        f"{atlas.control_density[feature]:.3%}",
    ]
    html = "\n".join(str(e.proto.body) for e in at.get("html"))
    shown = atlas.passages(feature)
    assert shown and html.count("background:rgba") >= sum(len(p.tokens) for p in shown)
    best = atlas.search("r")[0]
    at.button(key=f"found-{best[0]}-{best[1]}").click().run()
    assert at.session_state["feature"] == best[0]
    at = app(**view, feature=feature)
    play = store.reopen(run_job(at, "feature-run"))
    assert isinstance(play, FeaturePlay)
    assert (play.feature, play.control_feature) == (feature, atlas.twin(feature))
    assert play.values[0] == pytest.approx(1.5 * atlas.maximum[feature])
    said = words(app(**view, feature=feature))
    for name, surprise in zip(("Unsteered", f"Feature {feature} up"), play.surprise, strict=False):
        assert f"{name} · {surprise.mean():.2f} nats" in said
    assert "Feature up" not in words(app(**{**view, "feature_new": 5}, feature=feature))


def test_an_autoencoder_that_does_not_belong_is_refused_with_the_reason(tiny, transformer, sae, tmp_path):
    at = app(model=transformer, text=TEXT, sae=sae)
    assert not at.exception
    assert "belongs to tiny" in words(at) and at.session_state["text"] == TEXT
    at = app(model=tiny, text=TEXT, sae=tmp_path / "nothing")
    assert not at.exception and "has no cfg.json" in words(at)
    at = app(model=tiny, text=TEXT, sae=sae, feature=999)
    assert not at.exception


def test_one_is_trained_from_the_page_and_a_cancelled_training_keeps_what_it_has(tiny, strobe_home):
    at = app(model=tiny, text=TEXT, layer=1)
    assert "No autoencoder of this model" in words(at)
    at.number_input(key="sae_width").set_value(16)
    at.number_input(key="sae_k").set_value(2)
    at.number_input(key="sae_tokens").set_value(3000).run()
    run_job(at, "sae-train")
    loaded = loading.load(loading.find(str(tiny)))
    assert [f.label for f in features_work.sae_files(loaded)] == ["resid-post-1-16-k2 (trained here)"]
    at = app(model=tiny, text=TEXT, layer=1)
    assert "explains" in words(at) and "topk · 16 features" in words(at)

    class Cancelled(Exception):
        pass

    def tick(done, total, message):
        if done >= 20:
            raise Cancelled

    folder = features_work.sae_home(loaded) / "stopped"
    settings = {"d_sae": 16, "k": 2, "tokens": 64 * 40, "batch": 64}
    with pytest.raises(Cancelled):
        features_work.train_for_page(str(tiny), "blocks.0.hook_resid_post", settings, folder, tick)
    kept = features_work.open_sae(loaded, features_work.SaeFile("", folder))
    assert not kept.info["finished"] and kept.info["vectors_seen"] == 64 * 20


def test_an_atlas_and_a_play_that_are_cancelled_keep_and_show_what_they_had(tiny, sae, strobe_home, monkeypatch):
    from strobe.probes.sae import atlas_making

    monkeypatch.setattr(atlas_making, "_ROWS", 4)
    # Not as many tokens as in the test above: that would be the same job.
    view = {"model": tiny, "text": TEXT, "sae": sae, "atlas_tokens": 1536, "feature_new": 6, "position": 2}
    with monkeypatch.context() as patched:
        cancelled_at(patched, features_work, "make_atlas", lambda done, what: what.startswith("reading") and done == 8)
        atlas = store.reopen(run_job(app(**view), "atlas-run"))
    assert isinstance(atlas, FeatureAtlas)
    assert atlas.n_tokens == 8 * 127 and atlas.control_density.any()
    feature = int(atlas.density.argmax())
    said = words(app(**view, feature=feature))
    assert "cut short after 1016 of 1524 tokens: they are kept" in said
    cancelled_at(monkeypatch, features_work, "play", lambda done, what: what.startswith("continuing") and done == 2)
    play = store.reopen(run_job(app(**view, feature=feature), "feature-run"))
    assert isinstance(play, FeaturePlay) and [len(c) for c in play.continuations] == [2] * 4
    at = app(**view, feature=feature)
    assert not at.exception and "cut short after 2 of 6 new tokens: they are kept" in words(at)
