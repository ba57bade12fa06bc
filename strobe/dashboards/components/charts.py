"""A figure on a page, and every way to take it away: figure files, the numbers behind it, the result itself."""

import shutil
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from strobe.core import figures
from strobe.core.export import FORMATS, browser_path, figure_bytes
from strobe.core.result import Result

if TYPE_CHECKING:
    import plotly.graph_objects

_MIME = {
    "html": "text/html",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
}
_NO_BROWSER = (
    "Drawn by Chrome or Chromium, and none was found on this machine. Install one, or set BROWSER_PATH to it. "
    "The camera on the chart saves SVG from your own browser."
)
# Where a narrow figure's title begins: at its edge, not at its axis.
_AT_THE_EDGE: dict[str, Any] = {"x": 0, "xref": "container", "y": 1, "yref": "container", "pad": {"l": 8, "t": 16}}
Draw = Callable[..., "plotly.graph_objects.Figure"]


def figure_template() -> str:
    """The figures' template that fits the page: light or dark."""
    return figures.DARK if st.context.theme.type == "dark" else figures.LIGHT


def chart(
    result: Result,
    draw: Draw,
    *,
    key: str,
    alt: str,
    on_pick: Callable[[list[dict[str, Any]]], None] | None = None,
    narrow: bool = False,
) -> None:
    """Show ``draw(template=...)``, a figure of `result`, with its exports under it.

    `narrow`: it has half of the page, too little for a title, a subtitle or a legend on one line. `on_pick` is given
    the points of a click, before the page is drawn again. Pictures are always exported on the light template, which
    prints.
    """
    figure = draw(template=figure_template())
    # Streamlit brings this font with it under another name than the one that figures ask for.
    figure.update_layout(font={"family": f"'Source Sans', {figures.SANS}"})
    if narrow:
        _make_narrow(figure)
    elif len(tuple(figure.data)) > 1 and figure.layout.legend.y is None:
        # A line of its own: in a narrow window it would run into the title.
        figure.update_layout(margin={"t": max(figure.layout.margin.t or 0, 78)})
    options: dict[str, Any] = {"selection_mode": "points"}
    if on_pick is not None:
        options["on_select"] = lambda: on_pick(list(st.session_state[key].selection.points))
    st.plotly_chart(
        figure,
        key=key,
        theme=None,
        alt=alt,
        config={
            "displaylogo": False,
            "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
            "toImageButtonOptions": {"format": "svg", "filename": key},
        },
        **options,
    )
    exports(result, draw, key=key)


def _make_narrow(figure: "plotly.graph_objects.Figure") -> None:
    """Fold the title and subtitle of `figure`, and put a legend that it has not placed itself below."""
    title = figure.layout.title
    lines, below = (textwrap.wrap(text or "", n) for text, n in ((title.text, 34), (title.subtitle.text, 52)))
    figure.update_layout(
        title={"text": "<br>".join(lines), "subtitle": {"text": "<br>".join(below)}, **_AT_THE_EDGE},
        margin={"t": 30 + 20 * len(lines) + 16 * len(below)},
    )
    if len(tuple(figure.data)) > 1 and figure.layout.legend.y is None:
        figure.update_layout(
            legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.22, "yanchor": "top"}, margin={"b": 110}
        )


@st.fragment
def exports(result: Result, draw: Draw, *, key: str) -> None:
    """A menu of downloads: the figure in each format, its table, the whole result. Drawn when it is opened."""
    with st.container(horizontal=True, horizontal_alignment="right"):
        menu = st.popover("Export", icon=":material/download:", key=f"{key}-exports", on_change="rerun")
    if not menu.open:
        return
    drawable = _drawable()
    with menu:
        st.caption("Figure")
        with st.container(horizontal=True):
            for fmt in FORMATS:
                picture = fmt not in ("html", "json")
                st.download_button(
                    fmt.upper(),
                    data=lambda fmt=fmt: export_bytes(result, draw, fmt),
                    file_name=f"{key}.{fmt}",
                    mime=_MIME[fmt],
                    key=f"{key}-{fmt}",
                    on_click="ignore",
                    disabled=picture and not drawable,
                    help=_NO_BROWSER if picture and not drawable else None,
                )
        st.caption("Numbers")
        with st.container(horizontal=True):
            st.download_button(
                "Table (CSV)",
                data=lambda: result.to_frame().to_csv(index=False).encode("utf-8"),
                file_name=f"{key}.csv",
                mime="text/csv",
                key=f"{key}-csv",
                on_click="ignore",
            )
            st.download_button(
                "Result file",
                data=lambda: result_bytes(result),
                file_name=f"{key}.safetensors",
                mime="application/octet-stream",
                key=f"{key}-result",
                on_click="ignore",
                help="Opens again with strobe.core.load_result, figures and all.",
            )


def export_bytes(result: Result, draw: Draw, fmt: str) -> bytes:
    """The figure in the format `fmt`, on the light template, with the result's provenance inside html and json."""
    figure = draw(template=figures.LIGHT)
    figure.update_layout(meta={"strobe": {"result": type(result).__name__, "provenance": result.provenance.to_json()}})
    return figure_bytes(figure, fmt)


def result_bytes(result: Result) -> bytes:
    """The result's file as bytes."""
    folder = Path(tempfile.mkdtemp(prefix="strobe-"))
    try:
        return result.save(folder / "result.safetensors").read_bytes()
    finally:
        shutil.rmtree(folder)


@st.cache_data(max_entries=1, ttl=60)
def _drawable() -> bool:
    """Whether a browser that draws pictures is here; looked up at most once a minute."""
    return browser_path() is not None
