"""What a page says, read from the app run headless."""

import re

from streamlit.testing.v1 import AppTest

_KINDS = ("title", "markdown", "caption", "error", "warning", "info", "subheader", "text")


def words(at: AppTest) -> str:
    """Every text of the page, a line each, as it is seen: without the backslashes that keep Markdown from being one."""
    said = "\n".join(str(element.value) for kind in _KINDS for element in at.get(kind))
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", said)
