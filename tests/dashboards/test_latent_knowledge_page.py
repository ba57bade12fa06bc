"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

import json
import time
from pathlib import Path

import pytest
from page_words import words
from streamlit.testing.v1 import AppTest

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import runner
from strobe.probes.latent_knowledge import LatentKnowledge

ENTRY = Path(loading.__file__).parent / "entry" / "app.py"


def app(**query) -> AppTest:
    at = AppTest.from_file(str(ENTRY), default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = str(value)
    return at.run().switch_page("../pages/latent_knowledge.py").run()


def titles(at: AppTest) -> list[str]:
    return [json.loads(c.proto.spec)["layout"]["title"]["text"] for c in at.get("plotly_chart")]


@pytest.fixture
def problems(tmp_path) -> Path:
    def told(start: int, n: int, name: str) -> list[dict]:
        return [{"prompt": f"{name}: {i} is {'odd' if i % 2 else 'even'}r?", "true": i % 3 == 0}
                for i in range(start, start + n)]  # fmt: skip

    file = tmp_path / "mine.json"
    parts = {
        "train": {"Alice": told(0, 36, "A")},
        "test": {"Alice": told(40, 33, "A"), "Bob": told(40, 33, "B")},
    }
    file.write_text(json.dumps({"answers": ["yes", "no"], **parts}))
    return file


def test_problems_in_a_file_are_probed_and_the_link_shows_the_result_again(tiny, strobe_home, problems):
    view = {"model": tiny, "know_problems": problems, "know_at": "state"}
    at = app(**view)
    assert not at.exception and not at.error
    before = {j.key for j in runner().jobs()}
    at.button(key="know-run").click().run()
    (key,) = {j.key for j in runner().jobs()} - before
    for _ in range(1200):
        if runner().get(key).finished:
            break
        time.sleep(0.1)
    assert runner().get(key).state == "done", runner().get(key).error
    result = store.reopen(key)
    assert isinstance(result, LatentKnowledge) and result.point == "carry" and result.layers == (0, 1)
    runner().dismiss(key)
    other = app(**view)
    assert not other.exception
    own = result.output_accuracy()
    assert f"in Bob, {own[1]:.0%} answered truthfully" in words(other)
    shown = titles(other)
    least = result.test_contexts[result.test_index(None)]
    assert f"Probes at carry, fitted in Alice, tested in {least}" in shown
    assert f"Transfer between contexts at carry of layer {result.layers[result.layer_index(None)]}" in shown
    moved = other.selectbox(key="know_test").set_value("Alice").run()
    assert "Probes at carry, fitted in Alice, tested in Alice" in titles(moved)
    assert not titles(app(**{**view, "know_at": "residual stream"})), "another place is another question"


def test_a_model_without_problems_says_what_to_do(tiny, strobe_home):
    at = app(model=tiny)
    assert not at.exception and not at.error
    assert "was not trained on quirky_sums" in words(at) and "in a file" in words(at)
    at = app(model=tiny, know_problems=strobe_home / "nowhere.json")
    assert not at.exception
    assert "there is no such file" in words(at)


def test_a_model_that_reads_no_text_but_has_problems_is_asked(strobe_home):
    at = app(model="quirky-transformer")
    assert not at.exception and not at.error
    assert at.button(key="know-run").label == "Probe"
    assert at.segmented_control(key="know_at").options == ["residual stream", "mixer's output"]
