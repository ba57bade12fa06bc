"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from page_words import words
from streamlit.testing.v1 import AppTest

from strobe.dashboards import geometry_work, loading, store
from strobe.dashboards.jobs import Cancelled, runner
from strobe.probes.geometry import LayerGeometry

ENTRY = Path(loading.__file__).parent / "entry" / "app.py"
TEXT = "def area(r):\n    return r * 2"
VIEW = {"geometry_bank": 256, "geometry_judged": 32}
SETTINGS = {"n_bank": 256, "n_judged": 32}


def app(**query) -> AppTest:
    at = AppTest.from_file(str(ENTRY), default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = str(value)
    return at.run().switch_page("../pages/geometry.py").run()


def charts(at: AppTest) -> list[dict]:
    return [json.loads(c.proto.spec) for c in at.get("plotly_chart")]


def test_every_block_is_measured_kept_and_shown_again_by_its_link(tiny):
    view = {
        "model": tiny,
        "text": TEXT,
        "layer": 1,
        "geometry_map": "diagonal",
        "geometry_measure": "Relative error",
        **VIEW,
    }
    at = app(**view)
    assert not at.exception and not charts(at)
    at.button(key="geometry-run").click().run()
    key = geometry_work.key_of(loading.find(str(tiny)), SETTINGS)
    for _ in range(1200):
        if runner().get(key).finished:
            break
        time.sleep(0.1)
    assert runner().get(key).state == "done", runner().get(key).error
    result = store.reopen(key)
    assert isinstance(result, LayerGeometry) and result.layers == (0, 1, 2) and result.token_ids.size == 32
    runner().dismiss(key)
    other = app(**view)
    assert not other.exception and "cancelled" not in words(other)
    titles = [c["layout"]["title"]["text"] for c in charts(other)]
    assert titles[0].startswith("What a tokenwise map leaves over")
    assert "Map: diagonal" in titles[1] and "after block 1; map: diagonal" in titles[2] and "block 1" in titles[3]
    assert "**Control:** maps that know nothing of the token" in words(other)
    # Another number of tokens is another question.
    assert not charts(app(**{**view, "geometry_judged": 64}))


def test_a_cancelled_run_keeps_the_blocks_it_finished(tiny):
    def stop_in_block_1(done, total, what):
        if done > 110:
            raise Cancelled

    source = loading.find(str(tiny))
    key = geometry_work.key_of(source, SETTINGS)
    geometry_work.run(key, source.name, SETTINGS, stop_in_block_1)
    assert store.reopen(key).layers == (0,)
    at = app(model=tiny, text=TEXT, layer=2, **VIEW)
    assert not at.exception
    assert "blocks 0 of 3 are here" in words(at) and "Block 2 was not reached" in words(at)
    whole = app(model=tiny, text=TEXT, layer=0, **VIEW)
    assert len(charts(whole)) == 4
    np.testing.assert_array_equal(store.reopen(key).layers, (0,))

    def stop_at_once(done, total, what):
        if total > 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        geometry_work.run("geometry-none", source.name, SETTINGS, stop_at_once)
    assert store.reopen("geometry-none") is None
