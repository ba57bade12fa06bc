"""Figures as files: html and json always; png, svg and pdf where a browser is installed to draw them.

Nothing here asks the network for anything: the html carries plotly.js, and the drawing page is told to leave MathJax
out, which it otherwise loads from outside.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strobe.core import browser
from strobe.core.atomic import write_bytes
from strobe.core.errors import ExportError

if TYPE_CHECKING:
    import plotly.graph_objects

FORMATS = ("html", "json", "png", "svg", "pdf")
_PICTURES = ("png", "svg", "pdf")
_BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "brave-browser",
    "microsoft-edge",
)


def browser_path() -> str | None:
    """The Chrome or Chromium that would draw pictures, or None. ``BROWSER_PATH`` decides where it is set."""
    named = os.environ.get("BROWSER_PATH")
    if named:
        return named if Path(named).is_file() else None
    from choreographer.browsers.chromium import Chromium

    return Chromium.find_browser(skip_local=False) or next(
        (found for name in _BROWSERS if (found := shutil.which(name))), None
    )


def figure_bytes(
    fig: "plotly.graph_objects.Figure",
    fmt: str,
    *,
    width: int | None = None,
    height: int | None = None,
    scale: float | int = 2.0,
) -> bytes:
    """`fig` in the format `fmt`, one of `FORMATS`; size in pixels or None for its own, `scale` for a png's pixels.

    Raises ExportError if the format is unknown, or a picture is asked for and there is no browser or it fails.
    """
    if fmt not in FORMATS:
        raise ExportError(f"figure asked for as {fmt!r}; the formats are {', '.join(FORMATS)}")
    if fmt == "json":
        return str(fig.to_json()).encode()
    if fmt == "html":
        return _html(fig, width, height).encode()
    return _picture(fig, fmt, width, height, scale)


def export_figure(
    fig: "plotly.graph_objects.Figure",
    path: str | Path,
    *,
    width: int | None = None,
    height: int | None = None,
    scale: float | int = 2.0,
) -> Path:
    """Write `fig` to `path` in the format of its suffix, whole or not at all. Raises as `figure_bytes`."""
    path = Path(path)
    fmt = path.suffix.removeprefix(".").lower()
    if not fmt:
        raise ExportError(
            f"figure asked for as {path}, which has no suffix to say the format; add one of {', '.join(FORMATS)}"
        )
    write_bytes(path, figure_bytes(fig, fmt, width=width, height=height, scale=scale))
    return path


def _html(fig: Any, width: int | None, height: int | None) -> str:
    import plotly.graph_objects as go
    import plotly.io as pio

    sized = go.Figure(fig)
    if width or height:
        sized.update_layout(width=width, height=height)
    # The camera icon draws in the reader's own browser; svg stays sharp in a paper. No link to the maker's server.
    config = {
        "displaylogo": False,
        "showSendToCloud": False,
        "toImageButtonOptions": {"format": "svg"},
    }
    return pio.to_html(sized, include_plotlyjs=True, include_mathjax=False, full_html=True, config=config)


def _picture(fig: Any, fmt: str, width: int | None, height: int | None, scale: float | int) -> bytes:
    path = browser_path()
    if path is None:
        named = os.environ.get("BROWSER_PATH")
        found = f"BROWSER_PATH is {named!r}, where no file is" if named else "none was found"
        raise ExportError(
            f"{fmt} is drawn by Chrome or Chromium, and {found}; install one (Debian, Ubuntu: apt install chromium) or "
            "set BROWSER_PATH to it. html and json need none; a chart's camera icon saves svg from your own browser"
        )
    size = {"width": width or fig.layout.width or 900, "height": height or fig.layout.height or 480}
    try:
        return browser.draw(path, fig.to_dict(), {"format": fmt, "scale": scale, **size})
    except Exception as error:
        raise ExportError(
            f"{fmt} asked for, and {path} failed to draw it ({type(error).__name__}: {str(error)[:200]}); "
            "set BROWSER_PATH to another browser, or export html"
        ) from error
