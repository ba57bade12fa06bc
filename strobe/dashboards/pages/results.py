"""What jobs have computed and kept, and any other result file, opened again without the model."""

from datetime import datetime
from pathlib import Path

import streamlit as st

from strobe.core.errors import ResultFileError
from strobe.core.result import Result, load_result
from strobe.dashboards import store
from strobe.dashboards.components import chart, footer
from strobe.dashboards.plain import plain, sentence

TITLE = "Results"
ICON = ":material/inventory_2:"
ORDER = 90
QUESTION = "What was computed here before?"

_FROM = ("Kept here", "Upload", "Path")
# A result is read into memory at each look; what is larger is opened by its path, which sends nothing.
_UPLOAD_MB = 50


def _kept() -> Result | None:
    kept = store.listing()
    if not kept:
        st.info("Nothing is kept yet. Run an edit on the States page: its result is kept and listed here.")
        return None
    st.caption(f"{len(kept)} kept in {plain(str(kept[0].path.parent))}. Opened from the file, without the model.")
    names = [saved.path.stem for saved in kept]
    labels = {s.path.stem: f"{s.kind}, {datetime.fromtimestamp(s.written):%Y-%m-%d %H:%M:%S}" for s in kept}
    chosen = st.selectbox(
        "Result", names, key="result", bind="query-params", format_func=lambda n: f"{labels[n]} ({n[-6:]})"
    )
    return load_result(kept[names.index(chosen)].path if chosen in names else kept[0].path)


def _uploaded() -> Result | None:
    file = st.file_uploader(
        "Result file (.safetensors)",
        type=["safetensors"],
        max_upload_size=_UPLOAD_MB,
        key="result_upload",
        help=f"What Export, Result file wrote, or a result's save(). Up to {_UPLOAD_MB} MB; open a larger one by Path.",
    )
    return None if file is None else store.read_upload(file.name, file.getvalue())


def _at_path() -> Result | None:
    text = st.text_input(
        "Path of a result file", key="result_path", bind="query-params", placeholder="~/lens.safetensors",
        help="On the machine that runs strobe. A command writes one with --out, Python with result.save().",
    )  # fmt: skip
    if not text.strip():
        return None
    path = Path(text.strip()).expanduser()
    # A pipe or a device would be waited for.
    if path.exists() and not path.is_dir() and not path.is_file():
        raise ResultFileError(f"loading a result from {path}: this is a device or a pipe; give the path of a file")
    return load_result(path)


st.title("Results", anchor=False)
where = st.segmented_control(
    "Open", _FROM, default=_FROM[0], required=True, key="result_from", bind="query-params"
)  # fmt: skip
try:
    result = {"Upload": _uploaded, "Path": _at_path}.get(where or "", _kept)()
except (ResultFileError, OSError, RuntimeError) as error:
    # RuntimeError: expanduser knows no such user.
    st.error(sentence(error), icon=":material/error:")
    st.stop()
if result is None:
    st.stop()

st.text(result.summary())
chart(result, result.figure, key="result-figure", alt=type(result).__name__)
footer(result)
