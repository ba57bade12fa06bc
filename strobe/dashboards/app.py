"""One run of the app: finds the pages, draws the selection, runs the page that was asked for.

A page is a file in ``pages/`` that begins with the constants TITLE, ICON, ORDER and QUESTION (what it answers);
adding a page is adding the file. The constants are read without running it.
"""

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

PAGES = Path(__file__).resolve().parent / "pages"
_CONSTANTS = ("TITLE", "ICON", "ORDER", "QUESTION")


class PageFile(NamedTuple):
    """What a page says about itself."""

    path: Path
    title: str
    icon: str
    order: int
    question: str

    @property
    def name(self) -> str:
        """The page's part of the address."""
        return self.path.stem


@cache
def pages(folder: Path = PAGES) -> tuple[PageFile, ...]:
    """The pages in `folder`, in their order, read once. Raises ValueError for one that lacks a constant."""
    found = [_read(path) for path in folder.glob("*.py") if not path.name.startswith("_")]
    return tuple(sorted(found, key=lambda page: (page.order, page.title)))


def _read(path: Path) -> PageFile:
    values = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in _CONSTANTS:
            values[node.targets[0].id] = ast.literal_eval(node.value)
    if missing := [name for name in _CONSTANTS if name not in values]:
        raise ValueError(f"the page {path.name} lacks {', '.join(missing)}; a page begins with {', '.join(_CONSTANTS)}")
    return PageFile(path, values["TITLE"], values["ICON"], int(values["ORDER"]), values["QUESTION"])


def main() -> None:
    """One run of the app."""
    import streamlit as st

    from strobe.dashboards import selection
    from strobe.dashboards.components.first_paint import fetch_components

    st.set_page_config(page_title="strobe", page_icon="🔦", layout="wide")
    found = pages()
    chosen = st.navigation(
        [st.Page(p.path, title=p.title, icon=p.icon, url_path=p.name, default=p is found[0]) for p in found],
        expanded=True,
    )
    with st.sidebar:
        above = st.container()
        fetch_components()
        with above:
            selection.choose()
    chosen.run()
