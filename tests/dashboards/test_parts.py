"""Oracle: written by hand from the rules each part states (escaping, JSON without NaN, limits of a browser)."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from strobe.core.errors import ResultFileError
from strobe.dashboards import app, loading, selection, store, work
from strobe.dashboards.components.charts import export_bytes, result_bytes
from strobe.dashboards.components.lens_grid import grid_data
from strobe.dashboards.components.model_card import card_markdown, safe_markdown
from strobe.dashboards.components.state_edit import continuation_html
from strobe.dashboards.components.token_strip import strip_data
from strobe.dashboards.lens_view import view


@pytest.fixture
def session(monkeypatch):
    state: dict = {}
    monkeypatch.setattr(selection, "st", SimpleNamespace(session_state=state))
    return state


def test_a_click_on_the_lens_selects_token_and_block(session):
    selection.pick_lens_cell([{"x": 7, "y": 3}])
    # Row l is the output of block l - 1.
    assert session == {"position": 7, "layer": 2}
    selection.pick_lens_cell([{"x": 1, "y": 0}])
    assert session == {"position": 1, "layer": 2}


def test_a_click_on_nothing_keeps_the_selection(session):
    selection.pick_lens_cell([])
    selection.pick_point([])
    selection.pick_position(None)
    selection.pick_position(-1)
    assert session == {}
    selection.pick_point([{"x": 4.0, "y": 0.1}])
    assert session == {"position": 4}


@pytest.mark.parametrize(
    ("value", "inside", "said"),
    [
        (2, 2, ""),
        (9, 3, "layer 9 does not exist here (0 to 3)"),
        (-1, 0, "layer -1"),
        ("x", 0, "not a number"),
        (float("inf"), 0, ""),
    ],
)
def test_a_number_from_the_address_is_checked(value, inside, said):
    number, note = selection.within(value, 0, 3, "layer")
    assert number == inside
    assert said in note


def test_half_a_surrogate_pair_does_not_reach_a_tokenizer():
    assert selection.clean("a\ud800b\U0001f600") == "a\ufffdb\U0001f600"


def test_token_values_are_json_and_tokens_are_text():
    data = strip_data(["<b>", "a\n", "\u202e"], [1.0, math.nan, -math.inf], label="x", unit="", chosen=1)
    assert data["values"] == [1.0, None, None]
    assert data["words"] == ["<b>", "a⏎", "\\u202e"]
    assert data["ends"] == [False, True, False]
    json.dumps(data, allow_nan=False)


def test_continuations_are_escaped_and_differences_marked():
    html = continuation_html(["<img src=x>", " b"], ["<img src=x>", " c"])
    assert "<img" not in html
    assert html.count("background") == 1
    assert html.index("background") > html.index("&lt;img")


def test_a_card_cannot_load_a_picture():
    assert safe_markdown("![x](http://tracker/p.png) and ![y][z]") == "[x](http://tracker/p.png) and [y][z]"
    assert safe_markdown("wait!!![x](http://tracker/p.png)!") == "wait[x](http://tracker/p.png)!"
    assert card_markdown({"a_b": 1.23456, "c": {"d": [1, 2]}}) == "- **a b**: 1.235\n- **c**\n  - **d**: 1, 2"


@pytest.mark.parametrize(("layers", "tokens"), [(4, 24), (40, 512), (12, 100), (100, 10)])
def test_a_lens_of_any_size_is_drawn_within_a_browsers_limits(layers, tokens):
    seen = view(layers, tokens, tokens - 1)
    assert seen.first <= tokens - 1 < seen.first + seen.n_tokens
    assert seen.rows[0] == 0
    assert seen.rows[-1] == layers
    if seen.canvas:
        assert 2 * (64 + 58 * seen.n_tokens) < 32767
        assert len(seen.rows) <= 48
    else:
        assert (layers + 1) * tokens <= 1500
    assert seen.shortened == (seen.n_tokens < tokens)
    assert bool(seen.message) == (seen.shortened or len(seen.rows) < layers + 1)


def test_a_window_goes_where_it_is_asked_and_stays_inside():
    assert view(12, 512, 0, first=100).first == 100
    assert view(12, 512, 0, first=500).first == 512 - 256
    assert "Tokens 100 to 355 of 512" in view(12, 512, 0, first=100).message


def test_the_grid_shows_the_trajectorys_numbers(tiny):
    from strobe.probes.lens import LogitLens

    model = loading.open_model(str(tiny)).model
    trajectory = LogitLens().trajectory(model, "def area(r)")
    data = grid_data(trajectory, "cross_entropy", "logit", first=2, n_tokens=50, rows=[0, 3], chosen=4)
    assert data["values"][1][0] == pytest.approx(trajectory.cross_entropy[0, 3, 2])
    # The last token's next is unknown.
    assert data["values"][0][-1] is None
    assert data["chosen"] == 2
    assert len(data["tokens"]) == len(trajectory.tokens) - 2
    assert data["layers"] == ["0", "output"]
    json.dumps(data, allow_nan=False)
    shown = grid_data(trajectory, "probability", "logit", first=0, n_tokens=3, rows=[3], chosen=0)
    assert shown["values"][0][1] == pytest.approx(1 - trajectory.target_probability[0, 3, 1])


def test_exports_carry_their_provenance_and_the_result_file_opens_again(tiny):
    from strobe.core.result import load_result
    from strobe.probes.states import state_trace

    trace = state_trace(loading.open_model(str(tiny)).model, "def area", 0)
    for fmt in ("json", "html"):
        assert trace.provenance.weights_hash in export_bytes(trace, trace.figure, fmt).decode()
    (store.home() / "x").mkdir(parents=True)
    file = store.home() / "x" / "r.safetensors"
    file.write_bytes(result_bytes(trace))
    assert load_result(file) == trace


def test_a_kept_result_is_found_by_what_decides_it(tiny):
    from strobe.probes.states import state_trace

    source = loading.find(str(tiny))
    key = work.edit_key(source, "text", 0, 3, {"kind": "zero"})
    assert key == work.edit_key(source, "text", 0, 3, {"kind": "zero"})
    others = [
        work.edit_key(source, "texts", 0, 3, {"kind": "zero"}),
        work.edit_key(source, "text", 1, 3, {"kind": "zero"}),
        work.edit_key(source, "text", 0, 4, {"kind": "zero"}),
        work.edit_key(source, "text", 0, 3, {"kind": "scale"}),
        work.edit_key(replace(source, stamp="other"), "text", 0, 3, {"kind": "zero"}),
    ]
    assert len({key, *others}) == 6
    assert store.reopen(key) is None
    trace = state_trace(loading.open_model(str(tiny)).model, "def area", 0, attention=False)
    path = store.keep(key, trace)
    assert store.reopen(key) == trace
    assert [s.kind for s in store.listing()] == ["edit"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ResultFileError, match="cut short"):
        store.reopen(key)


def test_pages_are_found_in_order_and_without_running_them(tmp_path):
    assert [p.name for p in app.pages()][:3] == ["start", "lens", "states"]
    constants = 'TITLE = "B"\nICON = ":material/home:"\nORDER = 5\nQUESTION = "Why?"\n'
    (tmp_path / "b.py").write_text(constants + "raise SystemExit\n")
    (tmp_path / "a.py").write_text(constants.replace("5", "3"))
    (tmp_path / "_part.py").write_text("")
    assert [(p.name, p.order, p.question) for p in app.pages(tmp_path)] == [("a", 3, "Why?"), ("b", 5, "Why?")]
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    (lacking / "c.py").write_text('TITLE = "C"\n')
    with pytest.raises(ValueError, match=r"c\.py lacks ICON, ORDER, QUESTION"):
        app.pages(lacking)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "no model was given"),
        ("no-such-model", "there is no bundled model and no folder"),
        ("somebody/some-model", "strobe info somebody/some-model"),
        ("..", "without config.json"),
        (__file__, "it is a file"),
    ],
)
def test_a_model_that_is_not_there_says_what_is(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        loading.find(name)


def test_models_are_loaded_once_and_again_when_their_files_change(tiny, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    models = loading.Models(kept=1)
    first = models.open(str(folder))
    assert models.open(str(folder)) is first
    assert first.mixers == ("Mamba2", "GRU", "Attention")
    assert first.recurrent == (0, 1)
    assert loading.facts(first)["Parameters"] == f"{sum(p.numel() for p in first.model.parameters()):,}"
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    second = models.open(str(folder))
    assert second is not first
    models.open(str(tiny))
    assert models.open(str(folder)) is not second


def test_bits_per_byte_come_from_the_card(tiny, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    (folder / "card.json").write_text('{"bits_per_byte": {"valid": 2.5, "test": 2.25}}')
    assert loading.facts(loading.load(loading.find(str(folder))))["Bits per byte"] == "2.250"
    (folder / "card.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        loading.card(loading.find(str(folder)))


def test_norm_changes_sum_to_the_norm(tiny):
    from strobe.probes.states import state_trace, total_norm

    trace = state_trace(loading.open_model(str(tiny)).model, "def area", 1)
    np.testing.assert_allclose(np.cumsum(trace.norm_changes), total_norm(trace.norms))
