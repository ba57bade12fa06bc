"""What every page shows is fetched beside Streamlit's first code, not when the first widget of its kind comes.

Streamlit's browser code asks for a widget's part when it is to draw the first one, waits for it, and then for the next.
A browser that is told of them in the head of the page has them by then.
"""

import re
from functools import cache
from pathlib import Path

# Every page begins with these: the model, the text and its position in the sidebar, a switch, a component of our own.
WIDGETS = ("BidiComponent", "ButtonGroup", "NumberInput", "Selectbox", "TextArea")
# A built module's imports are one line at its start.
_IMPORT = re.compile(r"""(?:^|[;}\n])import(?:[^"'();]*?from)?\s*["']\./([^"']+)["']""")


@cache
def links(static: Path) -> str:
    """A ``<link rel="modulepreload">`` for each part of Streamlit's code that `WIDGETS` need and ``index.html`` does
    not name, from `static`, the folder that Streamlit serves. Raises ValueError for a widget that has no part there.
    """
    folder = static / "static" / "js"
    needed: dict[str, None] = {}
    for widget in WIDGETS:
        parts = [path.name for path in folder.glob(f"{widget}.*.js")]
        if len(parts) != 1:
            raise ValueError(
                f"Streamlit's code has {len(parts)} parts named {widget}, not one; install the release that "
                "constraints.txt names"
            )
        _add(folder, parts[0], needed)
    told = (static / "index.html").read_text(encoding="utf-8")
    made = (f'<link rel="modulepreload" crossorigin href="./static/js/{name}">' for name in needed if name not in told)
    return "".join(made)


def _add(folder: Path, name: str, needed: dict[str, None]) -> None:
    """Put the part `name` and what it imports into `needed`, each once."""
    if name not in needed:
        needed[name] = None
        for imported in _IMPORT.findall((folder / name).read_text(encoding="utf-8")):
            _add(folder, imported, needed)
