"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

import json
from functools import partial
from pathlib import Path

import pytest
from page_runs import open_page, run_job
from page_words import titles, words

from strobe.dashboards import store
from strobe.dashboards.jobs import runner
from strobe.probes.latent_knowledge import LatentKnowledge

app = partial(open_page, "latent_knowledge")


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
    key = run_job(at, "know-run")
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
