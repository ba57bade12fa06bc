"""Oracle: the formats' own signatures, Python's HTML parser, and Chromium, which draws what a reader would see."""

import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import plotly.io as pio
import pytest

from strobe.core import browser
from strobe.core.errors import ExportError
from strobe.core.export import FORMATS, browser_path, export_figure, figure_bytes
from strobe.core.figures import style, token_axis
from strobe.core.tokens import escape_plotly

TOKENS = ["<b>mat</b>", "$x$", "&amp;", "a\u202eb", " the"]


@pytest.fixture
def fig() -> go.Figure:
    made = style(go.Figure(go.Bar(x=[0, 1, 2, 3, 4], y=[1, 2, 3, 2, 1], name="bars")))
    made.update_layout(title_text=escape_plotly("costs $5 or %{y} <i>in all</i> $"))
    return token_axis(made, TOKENS)


class Loads(HTMLParser):
    """Every address that opening the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.addresses += [
            f"{tag} {name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "data")
        ]


def test_html_opens_without_any_network(fig: go.Figure, tmp_path: Path):
    page = export_figure(fig, tmp_path / "figure.html").read_text(encoding="utf-8")
    loads = Loads()
    loads.feed(page)
    assert loads.addresses == []
    assert loads.scripts >= 2
    assert not re.search(r"@import|<base\b", page[:2000])
    # plotly.js itself is inside, not just its name.
    assert len(page) > 3_000_000


def test_html_asks_plotlys_servers_for_nothing(fig: go.Figure):
    call = figure_bytes(fig, "html").decode()[-20_000:]
    assert re.search(r'"showSendToCloud":\s*false', call)
    assert not re.search(r"plotlyServerURL|BASE_URL|plot\.ly|plotly\.com", call[call.rindex("Plotly.newPlot") :])


def test_json_is_the_figure(fig: go.Figure, tmp_path: Path):
    path = export_figure(fig, tmp_path / "figure.json")
    assert pio.from_json(path.read_text()).to_dict() == fig.to_dict()


def test_the_size_asked_for_does_not_stick_to_the_figure(fig: go.Figure):
    assert '"width":640' in figure_bytes(fig, "html", width=640).decode().replace(" ", "")
    assert fig.layout.width is None


@pytest.mark.browser
def test_pictures_are_what_their_names_say(fig: go.Figure, tmp_path: Path):
    png = export_figure(fig, tmp_path / "f.png", width=300, height=200, scale=2).read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert (int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) == (600, 400)
    assert export_figure(fig, tmp_path / "f.PDF").read_bytes()[:5] == b"%PDF-"


@pytest.mark.browser
def test_what_is_drawn_is_the_text_and_not_its_markup(fig: go.Figure):
    import xml.etree.ElementTree as ET

    root = ET.fromstring(figure_bytes(fig, "svg").decode())
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for shown in ("<b>mat</b>", "$x$", "&amp;", "a\\u202eb", "·the", "costs $5 or %{y} <i>in all</i> $"):
        assert shown in texts


@pytest.mark.browser
def test_nothing_drawn_refers_to_the_network(fig: go.Figure):
    # Namespaces are names, not addresses.
    drawn = re.sub(r'xmlns(:\w+)?="[^"]*"', "", figure_bytes(fig, "svg").decode())
    assert "http" not in drawn


@pytest.mark.browser
def test_the_browser_is_kept_and_started_again(fig: go.Figure):
    figure_bytes(fig, "svg")
    kept = browser._current
    figure_bytes(fig, "svg")
    assert browser._current is kept
    assert kept is not None
    browser.close()
    assert browser._current is None
    assert not kept[1]._thread.is_alive()
    assert figure_bytes(fig, "svg").startswith(b"<svg")


def test_without_a_browser_pictures_are_refused_with_the_way_out(fig: go.Figure, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "absent"))
    assert browser_path() is None
    for fmt in ("png", "svg", "pdf"):
        with pytest.raises(ExportError, match=f"{fmt} is drawn by Chrome.*BROWSER_PATH is .*absent.*html and json"):
            export_figure(fig, tmp_path / f"f.{fmt}")
    assert list(tmp_path.iterdir()) == []
    assert export_figure(fig, tmp_path / "f.json").exists()


def test_a_browser_that_does_not_start_is_an_error_and_not_a_wait(fig: go.Figure, tmp_path: Path, monkeypatch):
    broken = tmp_path / "broken-browser"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("BROWSER_PATH", str(broken))
    with pytest.raises(ExportError, match=r"broken-browser failed to draw it \(BrowserFailedError"):
        export_figure(fig, tmp_path / "f.png")
    assert not (tmp_path / "f.png").exists()
    assert browser._current is None


@pytest.mark.parametrize("name", ["figure", "figure.eps", "figure.txt"])
def test_other_formats_are_refused_with_those_there_are(fig: go.Figure, tmp_path: Path, name: str):
    with pytest.raises(ExportError, match="html, json, png, svg, pdf"):
        export_figure(fig, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    assert FORMATS == ("html", "json", "png", "svg", "pdf")


def test_an_export_that_fails_leaves_the_old_file(fig: go.Figure, tmp_path: Path, monkeypatch):
    (tmp_path / "f.png").write_bytes(b"old")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "absent"))
    with pytest.raises(ExportError):
        export_figure(fig, tmp_path / "f.png")
    assert (tmp_path / "f.png").read_bytes() == b"old"
    assert json.loads(export_figure(fig, tmp_path / "f.json").read_text())["data"]
