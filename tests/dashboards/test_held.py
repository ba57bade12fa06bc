"""Oracle: the probe asked directly, against what the page of fixed points shows when run headless."""

import json
from pathlib import Path

from streamlit.testing.v1 import AppTest

from strobe.dashboards import loading
from strobe.probes.fixed_points import fixed_points, held_fixed_point

ENTRY = Path(loading.__file__).parent / "entry" / "app.py"
TEXT = "def area(r):\n    return r * 2"


def page(**query) -> AppTest:
    at = AppTest.from_file(str(ENTRY), default_timeout=90)
    for name, value in query.items():
        at.query_params[name] = str(value)
    return at.run().switch_page("../pages/fixed_points.py").run()


def titles(at: AppTest) -> list[str]:
    return [json.loads(c.proto.spec)["layout"]["title"]["text"] for c in at.get("plotly_chart")]


def test_a_network_of_real_inputs_shows_its_27_points_and_those_under_a_held_pulse():
    at = page(model="flipflop-elman16")
    assert not at.exception
    assert any("27 fixed points: 8 stable node" in c.value for c in at.caption)
    assert len(titles(at)) == 3
    at.slider(key="held-0").set_value(1.0).run()
    model = loading.open_model("flipflop-elman16").model
    expected = fixed_points(model, held=[1.0, 0.0, 0.0], n_initial=256, control=None)
    assert any(f"{len(expected.points)} fixed points" in c.value for c in at.caption)
    assert not at.exception


def test_a_linear_layer_is_solved_for_the_selected_token(tiny):
    at = page(model=tiny, text=TEXT, layer=0, position=3)
    assert not at.exception
    assert titles(at)[0].startswith("Timescales under a held token, layer 0")
    model = loading.open_model(str(tiny)).model
    token = int(model.tokenize(TEXT)[0][0, 3])
    shown = json.loads(at.get("plotly_chart")[0].proto.spec)["layout"]["title"]["subtitle"]["text"]
    assert shown.startswith(f"token {token} ")
    assert held_fixed_point(model, token, 0).status == ["stable"] * 3


def test_a_nonlinear_layer_is_searched_and_attention_has_none(tiny):
    assert any("fixed points:" in c.value for c in page(model=tiny, text=TEXT, layer=1).caption)
    at = page(model=tiny, text=TEXT, layer=2)
    assert "no recurrent carry" in at.info[0].value
    assert not at.exception
