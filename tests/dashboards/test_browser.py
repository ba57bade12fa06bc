"""Oracle: a real browser on a real server: what is clicked is selected, what is downloaded opens, nobody else is
asked.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlparse

import pytest

from strobe.dashboards import fetched_ahead

pytestmark = pytest.mark.browser

TEXT = "def area(r):\n    return r * 2"
# Whatever a page does with a token, none of this may become markup, a formula, a link or a request.
HOSTILE = (
    "<script>document.title='x'</script>$e^{i}$ **bold** [a](http://evil.example/a)<img src=http://evil.example/b>"
)
# A busy machine with two cores takes this long to load a page for the first time.
PATIENCE = 90_000


@pytest.fixture(scope="module")
def address(tiny, tmp_path_factory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "strobe.cli", "app", "--no-browser", "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "STROBE_HOME": str(tmp_path_factory.mktemp("home")), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    end = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1):
                break
        except OSError:
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert "error id" not in out


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from strobe.core.export import browser_path

    with playwright.sync_playwright() as p:
        found = p.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"])
        yield found
        found.close()


class Visit:
    """A tab, and every host and failure it has seen."""

    def __init__(self, browser) -> None:
        self.page = browser.new_page(viewport={"width": 1400, "height": 1700}, accept_downloads=True)
        self.page.set_default_timeout(PATIENCE)
        self.hosts, self.errors = set(), []
        self.page.on("request", lambda r: self.hosts.add(urlparse(r.url).hostname))
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))

    def until(self, name: str, value: str) -> None:
        """Wait until the address says that `name` is `value`."""
        self.page.wait_for_function(
            "([n, v]) => new URL(location.href).searchParams.get(n) === v", arg=[name, value], timeout=PATIENCE
        )

    def shows_text(self, text: str) -> None:
        """Wait until the text area holds `text`: it is drawn a moment before it is filled."""
        from playwright.sync_api import expect

        expect(self.page.get_by_role("textbox", name="Text", exact=True)).to_have_value(text, timeout=PATIENCE)

    def shows_figure(self, title: str) -> None:
        """Wait until a figure's title has `title` in it, in one line or folded."""
        self.page.wait_for_function(
            "t => [...document.querySelectorAll('.gtitle')]"
            ".some(e => (e.dataset.unformatted ?? '').replaceAll('<br>', ' ').includes(t))",
            arg=title,
            timeout=PATIENCE,
        )

    def query(self) -> dict[str, str]:
        return {k: v[0] for k, v in parse_qs(urlparse(self.page.url).query).items()}

    def download(self, label: str, button: str, folder: Path, nth: int = 0) -> Path:
        self.page.get_by_role("button", name=label).nth(nth).click()
        with self.page.expect_download(timeout=PATIENCE) as waiting:
            self.page.get_by_role("button", name=button, exact=True).first.click()
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        self.page.keyboard.press("Escape")
        return path


@pytest.fixture
def visit(browser) -> Iterator[Visit]:
    made = Visit(browser)
    yield made
    made.page.close()
    assert made.errors == []
    # Pictures are passed as data and blob addresses, which have no host.
    assert made.hosts <= {"127.0.0.1", None}


def test_a_deep_link_is_the_first_thing_a_fresh_server_is_asked_for(address, visit, tiny):
    # First in the file: only a server that has not run yet can take the folder of pages for an old kind of app.
    visit.page.goto(f"{address}/lens?{urlencode({'model': tiny, 'text': TEXT, 'position': 2})}")
    visit.page.get_by_role("heading", name="Lens", exact=True).wait_for()
    visit.shows_figure("predictions after token 2")
    visit.shows_text(TEXT)


def test_what_every_page_shows_is_not_waited_for(address, visit, tiny):
    # "ButtonGroup.CZAouSUd.js": the part of Streamlit's code that draws a row of buttons, and when it was asked for.
    asked = """() => [performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd,
      performance.getEntriesByType("resource").map(e => [e.name.split("/").pop(), e.startTime])]"""
    visit.page.goto(f"{address}/lens?{urlencode({'model': tiny, 'text': TEXT, 'position': 2})}")
    visit.shows_figure("predictions after token 2")
    loaded, parts = visit.page.evaluate(asked)
    widgets = [(name.split(".")[0], at) for name, at in parts if name.split(".")[0] in fetched_ahead.WIDGETS]
    assert {name for name, _ in widgets} == set(fetched_ahead.WIDGETS)
    assert [name for name, at in widgets if at >= loaded] == []
    # Plotly's 4.7 MB are not among them: they would be in everyone's way.
    assert [at < loaded for name, at in parts if name.startswith("PlotlyChart")] == [False]


def test_a_clicked_cell_is_selected_and_its_figure_downloaded(address, visit, tiny, tmp_path):
    visit.page.goto(f"{address}/lens?{urlencode({'model': tiny, 'text': 'def area(r)', 'position': 2})}")
    plot = visit.page.locator(".js-plotly-plot").first
    plot.locator(".heatmaplayer").wait_for(state="attached")
    visit.shows_figure("predictions after token 2")
    time.sleep(1.5)
    # Where the cell at token 5, layer 2 is, in the plot's own words.
    x, y = plot.evaluate(
        "p => { const a = p._fullLayout, b = p.getBoundingClientRect();"
        " return [b.left + a.xaxis._offset + a.xaxis.d2p(5), b.top + a.yaxis._offset + a.yaxis.d2p(2)]; }"
    )
    visit.page.mouse.move(x - 3, y - 3)
    time.sleep(0.2)
    visit.page.mouse.move(x, y)
    time.sleep(0.2)
    visit.page.mouse.click(x, y)
    visit.until("position", "5")
    visit.until("layer", "1")
    visit.shows_figure("predictions after token 5")

    figure = json.loads(visit.download("Export", "JSON", tmp_path).read_text())
    assert "Logit lens" in figure["layout"]["title"]["text"]
    assert "weights_hash" in figure["layout"]["meta"]["strobe"]["provenance"]


def test_a_carry_is_edited_from_a_clicked_token_and_the_link_shows_it_again(address, visit, browser, tiny, tmp_path):
    visit.page.goto(f"{address}/states?{urlencode({'model': tiny, 'text': TEXT, 'layer': 1, 'new': 4})}")
    strip = visit.page.locator("#strip span")
    strip.nth(6).wait_for()
    time.sleep(1)
    strip.nth(6).click()
    visit.until("position", "6")
    visit.page.get_by_text("Change the carry after token 6").wait_for()
    visit.page.get_by_role("button", name="Run the edit").click()
    visit.page.get_by_text("At the first prediction it can reach").wait_for()
    visit.page.get_by_text("Random edit of the same norm").wait_for()

    table = visit.download("Export", "Table (CSV)", tmp_path, nth=0).read_text()
    assert table.splitlines()[0] == "position,token,head,norm,norm_shuffled"

    # The address alone, in another tab, is the same view.
    assert visit.query()["position"] == "6"
    other = Visit(browser)
    other.page.goto(visit.page.url)
    other.page.get_by_text("At the first prediction it can reach").wait_for()
    other.page.close()
    assert other.hosts <= {"127.0.0.1", None}


def test_a_long_text_is_drawn_on_a_canvas_that_can_be_clicked(address, visit, tiny):
    visit.page.goto(f"{address}/lens?{urlencode({'model': tiny, 'text': TEXT * 3})}")
    canvas = visit.page.locator("#grid")
    canvas.wait_for()
    time.sleep(1)
    # Column 7 of 58 pixels after 64 of labels, second row from the top: layer 2 of 3.
    canvas.click(position={"x": 64 + 7.5 * 58, "y": 1.5 * 22})
    visit.until("position", "7")
    visit.until("layer", "1")
    colours = canvas.evaluate(
        "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((_, i) => i % 4 < 3)).size"
    )
    assert colours > 10


def test_every_page_opens_at_its_address_and_takes_a_hostile_text_for_text(address, visit, tiny):
    from strobe.dashboards.app import pages

    query = urlencode({"model": tiny, "text": HOSTILE, "layer": 1, "position": 5})
    for page in pages():
        visit.page.goto(f"{address}/{page.name}?{query}")
        visit.page.locator("h1").first.wait_for()
        visit.page.get_by_text("Block 1: GRU").wait_for()
        visit.page.wait_for_function("!document.querySelector('[data-testid=stSkeleton], [data-testid=stSpinner]')")
        assert visit.query() | {"model": str(tiny), "layer": "1", "position": "5"} == visit.query(), page.name
        visit.shows_text(HOSTILE)
        assert visit.page.get_by_text("not found").count() == 0, page.name
        assert visit.page.locator("[data-testid=stException]").count() == 0, page.name
        made = visit.page.locator(".katex, a[href*=evil], img[src*=evil], strong:text-is('bold')")
        assert made.count() == 0, page.name
        assert visit.page.title() != "x"


def test_steering_writes_side_by_side_and_a_cancelled_run_keeps_what_it_wrote(address, visit, tiny):
    query = {"model": tiny, "text": TEXT, "layer": 1, "steer_heat": 0}
    visit.page.goto(f"{address}/steering?{urlencode({**query, 'steer_new': 200})}")
    visit.page.get_by_role("button", name="Steer", exact=True).click()
    names = ("Unsteered", "Steered", "Random direction of the same norm")
    written = visit.page.locator("[data-testid=stHtml]")
    for name in names:
        visit.page.get_by_text(name, exact=True).wait_for()
    early = [written.nth(i).inner_text() for i in range(3)]
    # More is written while the job runs: what was seen first is how it begins.
    visit.page.wait_for_function(
        "n => document.querySelector('[data-testid=stHtml]')?.innerText.length > n", arg=len(early[0])
    )
    visit.page.get_by_role("button", name="Cancel").click()
    visit.page.get_by_text("cut short after").wait_for()
    kept = [written.nth(i).inner_text() for i in range(3)]
    assert all(later.startswith(first) and first for first, later in zip(early, kept, strict=True))

    # To its end: of the same noise, the same beginning.
    visit.page.goto(f"{address}/steering?{urlencode({**query, 'steer_new': 4})}")
    visit.page.get_by_role("button", name="Steer", exact=True).click()
    visit.page.get_by_text("nats per token to the unsteered model").nth(2).wait_for()
    assert visit.page.get_by_text("cut short after").count() == 0
    assert [kept[i].startswith(written.nth(i).inner_text()) for i in range(3)] == [True, True, True]
    assert visit.page.get_by_role("button", name="Run again").count() == 1


def test_the_first_pages_name_leads_to_it(address, visit, tiny):
    visit.page.goto(f"{address}/start?{urlencode({'model': tiny, 'text': TEXT})}")
    visit.page.get_by_role("heading", name="strobe", exact=True).wait_for()
    assert urlparse(visit.page.url).path == "/"
    visit.shows_text(TEXT)
    assert visit.page.get_by_text("not found").count() == 0


def test_a_picture_in_a_crafted_address_is_asked_of_nobody(address, visit, tiny):
    # That no other host was asked is checked where the visit ends.
    picture = "![a](http://evil.example/a.png)"
    for where in (f"lens?{urlencode({'model': picture})}", f"features?{urlencode({'model': tiny, 'sae': picture})}"):
        visit.page.goto(f"{address}/{where}")
        visit.page.locator("[data-testid=stAlertContentError]").get_by_text(picture).first.wait_for()
        assert visit.page.locator("img[src*=evil]").count() == 0
