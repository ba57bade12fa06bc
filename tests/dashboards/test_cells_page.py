"""Oracle: what a user would see, read from the app run headless, against the result kept by the job."""

import json
import time
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from strobe.dashboards import cells_work, loading, store
from strobe.dashboards.jobs import Cancelled, runner
from strobe.probes.cells import CellSearch

ENTRY = Path(loading.__file__).parent / "entry" / "app.py"
TEXT = "def area(r):\n    return r * 2"
VIEW = {"cells_files": 2, "cells_length": 32}
SETTINGS = {"n_files": 2, "length": 32}


def app(**query) -> AppTest:
    at = AppTest.from_file(str(ENTRY), default_timeout=120)
    for name, value in query.items():
        at.query_params[name] = str(value)
    return at.run().switch_page("../pages/cells.py").run()


def charts(at: AppTest) -> list[str]:
    return [json.loads(c.proto.spec)["layout"]["title"]["text"] for c in at.get("plotly_chart")]


def words(at: AppTest) -> str:
    return "\n".join(str(e.value) for kind in ("markdown", "caption", "error", "info", "warning") for e in at.get(kind))


def test_a_search_is_run_kept_and_shown_again_by_its_link(tiny):
    view = {"model": tiny, "text": TEXT, "cells_label": "line position", "cells_rank": 2, **VIEW}
    at = app(**view)
    assert not at.exception and not charts(at)
    at.button(key="cells-run").click().run()
    key = cells_work.key_of(loading.find(str(tiny)), SETTINGS)
    for _ in range(600):
        if runner().get(key).finished:
            break
        time.sleep(0.1)
    assert runner().get(key).state == "done", runner().get(key).error
    result = store.reopen(key)
    assert isinstance(result, CellSearch) and result.length == 32 and set(result.layers) == {0, 1}
    runner().dismiss(key)
    other = app(**view)
    assert not other.exception and "cancelled" not in words(other)
    unit = result.unit_name(int(result.best[0, result.label_index("line_position"), 1]))
    assert charts(other) == [
        "The best cell for each label",
        f"{unit} after each token",
        "Every unit and the label line position",
    ]
    assert "**Control:** the whole search again" in words(other)
    # Another number of files is another question.
    assert not charts(app(**{**view, "cells_files": 4}))


def test_a_search_cancelled_in_its_last_control_keeps_the_rest_and_says_so(tiny):
    def stop_when_permuted(done, total, what):
        if "permuted" in what:
            raise Cancelled

    source = loading.find(str(tiny))
    key = cells_work.key_of(source, SETTINGS)
    cells_work.run(key, source.name, SETTINGS, stop_when_permuted)
    at = app(model=tiny, text=TEXT, **VIEW)
    assert not at.exception and len(charts(at)) == 3
    assert "“weights permuted” was run" in words(at)

    def stop_at_once(done, total, what):
        if total > 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        cells_work.run("cells-none", source.name, SETTINGS, stop_at_once)
    assert store.reopen("cells-none") is None


def test_a_transformer_is_said_to_have_no_carry(transformer):
    assert "channels of the **residual stream**" in words(app(model=transformer, text=TEXT, **VIEW))
