"""Oracle: what a user would see, read from the app run headless: a view is a link, bad input loses nothing."""

import json
import time
from urllib.parse import urlencode

import pytest
from page_runs import finish, open_page, run_job, start_job
from page_words import charts, titles, words

from strobe.dashboards import asks, loading, store, work
from strobe.dashboards.app import pages
from strobe.dashboards.jobs import runner

TEXT = "def area(r):\n    return r * 2"


@pytest.mark.parametrize("page", [p.name for p in pages()])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_every_page_shows_a_model_and_a_text(page, layer, tiny):
    at = open_page(page, model=tiny, text=TEXT, layer=layer, position=3)
    assert not at.exception
    assert not at.error
    assert at.title[0].value
    assert at.session_state["position"] == 3


@pytest.mark.parametrize("page", [p.name for p in pages()])
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"model": "no-such-model"}, "no-such-model"),
        ({"model": "somebody/some-model"}, "downloads nothing"),
        ({"model": ""}, "o model"),
    ],
)
def test_every_page_says_what_is_wrong_with_the_model(page, query, said):
    at = open_page(page, text=TEXT, **query)
    assert not at.exception
    # Nothing lost: the text is still there.
    if query["model"]:
        assert said in words(at)
    assert at.session_state["text"] == TEXT


@pytest.mark.parametrize("page", ["lens", "states"])
def test_an_empty_text_asks_for_one(page, tiny):
    at = open_page(page, model=tiny, text=" \n ")
    assert not at.exception
    assert "Type a text" in words(at)
    assert not at.get("plotly_chart")


@pytest.mark.parametrize("page", ["lens", "states"])
@pytest.mark.parametrize("text", ["\u202eabc\u0000<script>alert(1)</script>", "%{x} $a$ <b>b</b>", "🦜" * 9, "a"])
def test_odd_texts_are_shown_and_escaped(page, text, tiny):
    at = open_page(page, model=tiny, text=text)
    assert not at.exception
    assert not at.error
    for spec in charts(at):
        assert "<script" not in json.dumps(spec)
        assert "\u202e" not in json.dumps(spec, ensure_ascii=False)


@pytest.mark.parametrize("page", ["lens", "states"])
@pytest.mark.parametrize(
    "query", [{"layer": 99}, {"layer": "abc"}, {"position": -5}, {"position": "9" * 30}, {"colour": "red"}]
)
def test_values_from_the_address_that_do_not_fit_fall_back(page, query, tiny):
    at = open_page(page, model=tiny, text=TEXT, **query)
    assert not at.exception
    assert not at.error
    assert at.get("plotly_chart")


def test_a_shorter_text_moves_the_position_inside_and_says_so(tiny):
    at = open_page("lens", model=tiny, text=TEXT, position=9)
    assert at.session_state["position"] == 9
    at.text_area(key="text").set_value("def").run()
    assert not at.exception
    assert at.session_state["position"] < 3
    assert "position 9 does not exist here" in words(at)
    assert at.text_area(key="text").value == "def"


def test_a_smaller_model_moves_the_layer_inside(tiny, transformer):
    at = open_page("lens", model=tiny, text=TEXT, layer=2, position=4)
    box = at.selectbox(key="model")
    # A path is typed in the browser; AppTest knows only what is listed.
    box.options.append(str(transformer))
    box.set_value(str(transformer)).run()
    assert not at.exception
    assert at.session_state["layer"] == 0
    assert at.session_state["position"] == 4
    assert "layer 2 does not exist here" in words(at)


def test_a_long_text_is_cut_and_said_and_drawn_as_a_grid(tiny):
    at = open_page("lens", model=tiny, text="x = 1\n" * 200, position=300)
    assert not at.exception
    said = words(at)
    assert "the first 512 are analysed" in said
    assert "of 512" in said
    # The grid, and not a Plotly heat map of 2048 cells.
    assert not any("lens: KL" in title for title in titles(at))


def test_a_damaged_model_is_named(tiny, tmp_path):
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    at = open_page("lens", model=folder, text=TEXT)
    assert "Git LFS pointer" in words(at)
    assert not at.exception


def test_the_lens_page_shows_the_selected_token_through_depth(tiny):
    at = open_page("lens", model=tiny, text="def area", position=2)
    shown = titles(at)
    assert any("Logit lens: KL" in title for title in shown)
    assert any("after token 2" in title for title in shown)
    assert at.segmented_control(key="lens").options == ["logit"]


def test_a_lens_is_trained_as_a_job_and_used_from_then_on(tiny, strobe_home):
    at = open_page("lens", model=tiny, text="def area")
    at.number_input(key="lens_steps").set_value(10).run()
    source = loading.find(str(tiny))
    assert run_job(at, "lens_train") == store.key_of("lens", model=source.name, stamp=source.stamp)
    at.run()
    assert list((strobe_home / "lenses").glob("*.safetensors"))
    assert not at.exception
    again = open_page("lens", model=tiny, text="def area")
    assert again.segmented_control(key="lens").options == ["tuned", "logit"]
    assert any("Tuned lens: KL" in title for title in titles(again))
    assert "constant" in words(again) or "Control" in words(again)


def test_a_cancelled_training_keeps_the_lens_as_it_was_then(tiny, strobe_home):
    at = open_page("lens", model=tiny, text="def area")
    at.number_input(key="lens_steps").set_value(5000).run()
    key = start_job(at, "lens_train")
    while "fitting the lens: step" not in (runner().get(key).message or ""):
        assert not runner().get(key).finished, runner().get(key).error
        time.sleep(0.05)
    at.run()
    assert at.get("progress")
    at.button(key=f"{key}-cancel").click().run()
    finish(key, "cancelled")
    job = runner().get(key)
    assert "What was finished is shown." in words(at.run())
    lens, problem = asks.open_lens(loading.open_model(str(tiny)), *work.lens_files(loading.open_model(str(tiny))))
    # The step at which it was told to end is done.
    assert not problem and lens.report.steps[-1] == job.done + 1
    # One that ends takes its place.
    work.fit_lens(str(tiny), work.lens_home(loading.open_model(str(tiny))), lambda *_: None, steps=10)
    assert [f.label for f in work.lens_files(loading.open_model(str(tiny)))] == ["trained here"]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ({"edit": "zero"}, "× 0"),
        ({"edit": "scale", "value": 3.0}, "× 3"),
        ({"edit": "splice", "splice": "return 2"}, "another text"),
    ],
)
def test_an_edit_is_run_kept_and_opened_by_its_link(query, title, tiny):
    view = dict(model=tiny, text=TEXT, layer=1, position=4, new=3, **query)
    at = open_page("states", **view)
    assert "KL(untouched" not in words(at)
    key = run_job(at, "edit-run")
    assert not at.run().exception
    assert title in store.reopen(key).edit
    # The same link, in another tab, shows the kept result without running anything.
    runner().dismiss(key)
    other = open_page("states", **view)
    assert "random edits of the same norm" in words(other)
    assert any("First prediction the edit can reach" in t for t in titles(other))
    assert runner().get(key) is None
    # Another position is another question.
    assert "KL(untouched" not in words(open_page("states", **{**view, "position": 5}))


def test_a_splice_without_a_text_cannot_be_run(tiny):
    at = open_page("states", model=tiny, text=TEXT, edit="splice")
    assert at.button(key="edit-run").disabled
    assert "Type the text whose carry" in words(at)


def test_a_layer_without_a_carry_offers_those_that_have_one(tiny, transformer):
    at = open_page("states", model=tiny, text=TEXT, layer=2)
    assert "no recurrent carry" in words(at)
    at.button(key="layer-1").click().run()
    assert at.session_state["layer"] == 1
    assert at.get("plotly_chart")
    assert "no recurrent layer" in words(open_page("states", model=transformer, text=TEXT))


def test_a_failed_page_shows_an_id_and_not_the_message(tiny, monkeypatch):
    from strobe.dashboards import launcher

    shown = []
    monkeypatch.setattr("streamlit.error", lambda text, **_: shown.append(text))
    assert launcher.show_error_id(RuntimeError("the password is 1234"))
    assert "RuntimeError" in shown[0]
    assert "1234" not in shown[0]


def test_a_view_is_a_link(tiny):
    query = {"model": str(tiny), "text": TEXT, "layer": "1", "position": "6", "colour": "entropy"}
    assert len(urlencode(query)) < 2000
    at = open_page("lens", **query)
    assert any(": entropy" in title for title in titles(at))
    assert (at.session_state["layer"], at.session_state["position"]) == (1, 6)
    assert any("after token 6" in title for title in titles(at))


def test_lens_file_of_another_model_is_refused_with_a_reason(tiny, tmp_path):
    from strobe.probes.lens import TunedLens

    other = loading.load(loading.find(str(tiny)))
    other.model.embed.weight.data.mul_(1.5)
    lens = TunedLens.untrained(other.model)
    path = work.lens_home(loading.open_model(str(tiny)))
    path.parent.mkdir(parents=True)
    lens.save(path)
    at = open_page("lens", model=tiny, text="def area")
    assert not at.exception
    assert "translators fit one model only" in words(at)
    assert any("Logit lens" in title for title in titles(at))


def test_kept_results_open_without_the_model(tiny):
    from strobe.probes.states import state_intervention

    assert "Nothing is kept yet" in words(open_page("results", model=tiny))
    result = state_intervention(loading.open_model(str(tiny)).model, TEXT, 0, 2, "zero", max_new_tokens=0)
    path = store.keep("edit-1", result)
    at = open_page("results", model="gone")
    assert not at.exception
    assert any("First prediction" in title for title in titles(at))
    assert result.edit in at.get("text")[0].value
    path.write_bytes(b"")
    assert "cut short" in words(open_page("results", model="gone"))


def test_the_first_model_offered_is_one_that_reads_text(tiny, monkeypatch):
    from types import SimpleNamespace

    from strobe.dashboards import selection

    folders = {"numbers": tiny.parent, "text": tiny}
    monkeypatch.setattr(selection.loading, "find", lambda name: SimpleNamespace(folder=folders[name]))
    assert selection._first_that_reads(["numbers", "text"]) == 1
    assert selection._first_that_reads(["numbers"]) == 0
    assert selection._first_that_reads([]) is None
