"""Seconds, as a person waits them, on the lens page with 64 tokens: first paint warm, and click to second plot.

A real server and a real browser on this machine. Warm: server and browser have shown the page twice; the tab is new.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

# 64 tokens of the bundled models' tokenizer; the page says how many there are.
TEXT = (
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n"
    "        self.items.append(item)\n\n    def pop(self):\n        return self.items.pop()\n\n    def __len__(self"
)

# Both ends are taken in the page: a driver looks for an element only now and then, and moves the pointer first.
# A title may be folded to the width of its figure.
_DRAWN = """title => [...document.querySelectorAll(".gtitle")]
  .some(e => (e.dataset.unformatted ?? "").replaceAll("<br>", " ").includes(title))"""
_WATCH = f"""title => {{
  window.clicked = new Promise(done => {{
    let start;
    document.addEventListener("click", () => {{ start = performance.now(); }}, {{ capture: true, once: true }});
    const drawn = {_DRAWN};
    const watch = new MutationObserver(() => {{
      if (drawn(title)) {{ watch.disconnect(); done(performance.now() - start); }}
    }});
    watch.observe(document, {{ childList: true, subtree: true, characterData: true, attributes: true }});
  }});
}}"""


# Tabs before those that count.
_WARM = 2


def section(turns: int = 5) -> str:
    """One line with both medians, or why they were not measured."""
    return f"## Lens page\n\n{_measure(turns)}"


def _measure(turns: int) -> str:
    from strobe.core.export import browser_path

    if browser_path() is None:
        return "Lens page: not measured, there is no Chromium here."
    from playwright.sync_api import sync_playwright

    with TemporaryDirectory() as home, sync_playwright() as p:
        server, address = _serve(home)
        try:
            # One person's tabs, in a profile on disk as people have it: what the browser fetched and compiled for one
            # tab, it has for the next. A private window, which is what a driver opens by default, keeps no compiled
            # code.
            tabs = p.chromium.launch_persistent_context(
                f"{home}/profile",
                executable_path=browser_path(),
                args=["--no-sandbox"],
                viewport={"width": 1400, "height": 1700},
            )
            # Chromium compiles ahead what it has met before.
            for _ in range(_WARM):
                _visit(tabs, address)
            paints, clicks = zip(*(_visit(tabs, address) for _ in range(turns)), strict=True)
            tabs.close()
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
    return (
        f"Lens page, transformer-python, {_n_tokens()} tokens: first paint warm {median(paints):.2f} s (reach ≤ 1 s), "
        f"click to second plot {median(clicks):.2f} s (reach ≤ 0.3 s); medians of {turns} new tabs of a profile "
        f"that has shown the page {_WARM} times, wall seconds."
    )


def _n_tokens() -> int:
    import strobe

    return strobe.load("transformer-python").tokenize(TEXT)[0].shape[1]


def _serve(home: str) -> tuple[subprocess.Popen, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "strobe.cli", "app", "--no-browser", "--port", str(port)]
    server = subprocess.Popen(command, env=os.environ | {"STROBE_HOME": home}, stdout=subprocess.DEVNULL)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1)
            return server, f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the app did not answer within two minutes; start `strobe app` by hand to see why")


def _visit(tabs: Any, address: str) -> tuple[float, float]:
    """(seconds to the first plot in a new tab, seconds from a click on a cell to the second plot of that token)."""
    page = tabs.new_page()
    page.set_default_timeout(120_000)
    start = time.perf_counter()
    page.goto(f"{address}/lens?{urlencode({'model': 'transformer-python', 'text': TEXT, 'position': 2})}")
    # 64 tokens are drawn on a canvas; its size is set by the code that draws it.
    grid = page.locator("#grid")
    grid.wait_for()
    while grid.evaluate("c => c.width") <= 300:
        time.sleep(0.01)
    painted = time.perf_counter() - start
    page.wait_for_function(_DRAWN, arg="predictions after token 2")
    time.sleep(1.5)
    page.evaluate(_WATCH, "predictions after token 9")
    # Column 9 of 58 pixels after 64 of labels, second row from the top.
    grid.click(position={"x": 64 + 9.5 * 58, "y": 1.5 * 22})
    clicked = page.evaluate("window.clicked") / 1e3
    page.close()
    return painted, clicked


if __name__ == "__main__":
    print(section())
