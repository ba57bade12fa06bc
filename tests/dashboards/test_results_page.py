"""Oracle: the result that was saved, beside what the page shows of the file it was saved in."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from page_runs import open_page
from page_words import titles, words
from safetensors.numpy import save_file
from streamlit.testing.v1 import AppTest

from strobe.core.result import Result
from strobe.dashboards import loading, store
from strobe.dashboards.components import charts

app = partial(open_page, "results", model="gone")


def upload(name: str, data: bytes) -> AppTest:
    at = app(result_from="Upload")
    assert not at.exception and not at.get("plotly_chart")
    return at.file_uploader(key="result_upload").upload(name, data).run()


@pytest.fixture
def saved(tiny, tmp_path) -> tuple[Result, Path]:
    from strobe.probes.states import state_intervention

    result = state_intervention(loading.open_model(str(tiny)).model, "def area", 0, 2, "zero", max_new_tokens=0)
    return result, result.save(tmp_path / "mine.safetensors")


def shows(at: AppTest, result: Result) -> None:
    assert not at.exception and not at.main.error
    assert [text.value for text in at.get("text")] == [
        result.summary(),
        f"{result.summary()}\n\n{result.provenance.summary()}",
    ]
    assert titles(at) == [result.figure().layout.title.text]
    assert f"**Control:** {result.provenance.control}" in words(at)


def test_a_file_from_elsewhere_is_shown_whichever_way_it_comes(saved):
    result, path = saved
    shows(upload("from a colleague.safetensors", path.read_bytes()), result)
    # A view is a link.
    shows(app(result_from="Path", result_path=path), result)
    # Neither is among what was kept here.
    assert not store.listing() and "Nothing is kept yet" in words(app())


def test_what_is_taken_away_is_what_was_in_the_file(saved, monkeypatch):
    result, path = saved
    taken = []
    monkeypatch.setattr("streamlit.popover", lambda *_, **__: _Open())
    monkeypatch.setattr(
        "streamlit.download_button", lambda label, data, file_name, **_: taken.append((file_name, data))
    )
    assert not upload("mine.safetensors", path.read_bytes()).exception
    files = dict(taken)
    assert files["result-figure.csv"]().decode() == result.to_frame().to_csv(index=False)
    assert files["result-figure.safetensors"]() == path.read_bytes() == charts.result_bytes(result)
    assert {"result-figure.html", "result-figure.svg"} <= set(files)


class _Open:
    open = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_a_damaged_file_is_named_as_it_was_sent(saved, tmp_path):
    _, path = saved
    data = path.read_bytes()[:-7]
    at = upload("half ![x](http://tracker/x.png).safetensors", data)
    assert not at.exception and not at.get("plotly_chart")
    said = words(at)
    assert "Loading a result from half ![x](http://tracker/x.png).safetensors: its" in said
    assert f"{len(data)} bytes are not a whole safetensors file" in said and "copy it again" in said
    # As text: a picture would be asked of whoever it names.
    (error,) = at.main.error
    assert "![x]" not in error.value
    path.write_bytes(data)
    assert str(path) in words(app(result_from="Path", result_path=path))


def test_weights_and_other_files_are_said_to_be_no_result(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"w": np.zeros(3)}, path)
    for at in (upload("weights.safetensors", path.read_bytes()), app(result_from="Path", result_path=path)):
        assert not at.exception and not at.get("plotly_chart")
        assert "this safetensors file is not a saved result" in words(at)
    save_file({"w": np.zeros(3)}, path, metadata={"strobe": '{"kind": "result", "format": 1}'})
    assert "the header is damaged (no class, module, version, fields)" in words(
        upload("odd.safetensors", path.read_bytes())
    )


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/no/such/file.safetensors", "there is no such file"),
        ("/", "this is a folder"),
        ("/dev/zero", "this is a device or a pipe"),
        ("~no-such-user/x", "home"),
        ("x" * 5000, "name too long"),
    ],
)
def test_a_path_that_holds_no_result_is_said(path, said):
    at = app(result_from="Path", result_path=path)
    assert not at.exception and not at.get("plotly_chart")
    assert said in words(at)
