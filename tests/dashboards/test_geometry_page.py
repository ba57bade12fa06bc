"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

from functools import partial

import numpy as np
import pytest
from page_runs import open_page, run_job
from page_words import charts, titles, words

from strobe.dashboards import geometry_work, loading, store
from strobe.dashboards.jobs import Cancelled, runner
from strobe.probes.geometry import LayerGeometry

app = partial(open_page, "geometry")
TEXT = "def area(r):\n    return r * 2"
VIEW = {"geometry_bank": 256, "geometry_judged": 32}
SETTINGS = {"n_bank": 256, "n_judged": 32}


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
    key = run_job(at, "geometry-run")
    assert key == geometry_work.key_of(loading.find(str(tiny)), SETTINGS)
    result = store.reopen(key)
    assert isinstance(result, LayerGeometry) and result.layers == (0, 1, 2) and result.token_ids.size == 32
    runner().dismiss(key)
    other = app(**view)
    assert not other.exception and "cancelled" not in words(other)
    shown = titles(other)
    assert shown[0].startswith("What a tokenwise map leaves over")
    assert "Map: diagonal" in shown[1] and "after block 1; map: diagonal" in shown[2] and "block 1" in shown[3]
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
