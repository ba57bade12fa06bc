"""What a page says and draws, read from the app run headless."""

import json
import re
from typing import Any

from streamlit.testing.v1 import AppTest

_KINDS = ("title", "markdown", "caption", "error", "warning", "info", "subheader", "text")


def words(at: AppTest) -> str:
    """Every text of the page, a line each, as it is seen: without the backslashes that keep Markdown from being one."""
    said = "\n".join(str(element.value) for kind in _KINDS for element in at.get(kind))
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", said)


def charts(at: AppTest) -> list[dict[str, Any]]:
    """The figures of the page as Plotly is given them, in their order."""
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def titles(at: AppTest) -> list[str]:
    """The titles of the figures, on one line each: a figure that has half of the page folds its own."""
    return [chart["layout"]["title"]["text"].replace("<br>", " ") for chart in charts(at)]


def subtitles(at: AppTest) -> list[str]:
    """What stands below each title, on one line; empty where nothing does."""
    return [chart["layout"]["title"].get("subtitle", {}).get("text", "").replace("<br>", " ") for chart in charts(at)]
