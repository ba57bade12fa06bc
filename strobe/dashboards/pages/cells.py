"""Which number of the carry follows what the text is about, and that number along the page's text."""

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import streamlit as st

from strobe.core.errors import ResultFileError
from strobe.dashboards import cells_work as work
from strobe.dashboards import selection, store
from strobe.dashboards.components import chart, footer, job_panel, token_strip
from strobe.dashboards.jobs import runner

if TYPE_CHECKING:
    from strobe.probes.cells import CellSearch

TITLE = "Cells"
ICON = ":material/grid_view:"
ORDER = 25
QUESTION = "Which single number of the carry knows that we are inside a string, and is it better than chance?"

st.title("Interpretable cells", anchor=False)
loaded, here = selection.require()
st.markdown(
    "Karpathy, Johnson & Fei-Fei (2015) found LSTM cells that follow quotes and line length **by looking**. Here "
    "**every unit** of every carry is tried against labels that Python's own `tokenize` makes, chosen on some files "
    "and judged on others; the search, the labels and the controls are ours. The best of thousands always looks like "
    "something: compare the grey marks."
    + ("" if loaded.recurrent else " This model has no recurrence: units are channels of the **residual stream**.")
)
if loaded.model.tokenizer is None:
    st.info("This model came without a tokenizer, and cells follow text. Choose one that reads text.")
    st.stop()
first, second, third = st.columns([2, 2, 5], vertical_alignment="bottom")
with first:
    files = st.number_input("Files (of each kind)", 2, 64, 16, 2, key="cells_files", bind="query-params")
with second:
    length = st.number_input("Tokens of a file", 16, 1024, 512, 16, key="cells_length", bind="query-params")
settings: dict[str, Any] = {"n_files": min(max(int(files), 2), 64), "length": min(max(int(length), 16), 1024)}
key = work.key_of(loaded.source, settings)


def _start() -> None:
    name = loaded.source.name
    runner().submit(key, f"Cells of {name}", lambda tick: work.run(key, name, settings, tick))


def _reopen() -> "CellSearch | None":
    # A file finds its class by name once the module that has it is imported.
    import strobe.probes.cells.search_result  # noqa: F401

    try:
        return cast("CellSearch | None", store.reopen(key))
    except ResultFileError as error:
        st.warning(f"A kept result could not be opened and will be computed again when you run it: {error}")
        return None


result = _reopen()
job = runner().get(key)
with third:
    st.button(
        "Search again" if result is not None else "Search every unit",
        type="secondary" if result is not None else "primary",
        icon=":material/play_arrow:",
        key="cells-run",
        on_click=_start,
        disabled=job is not None and not job.finished,
    )
if job_panel(key, kept=result is not None) or result is None:
    st.stop()
if (result.best[-1] < 0).all():
    st.warning(
        f"The search was cancelled before the control “{result.variants[-1]}” was run: without it, nothing here says "
        "that training made these cells. Search again for all.",
        icon=":material/info:",
    )
chart(result, result.figure, key="cells", alt="correlation of the best unit with each label, beside two controls")

found = [name for i, name in enumerate(result.labels) if result.chosen[0, i, 0] == result.chosen[0, i, 0]]
if not found:
    st.info("No label varies in these files. Take more files or more tokens.")
    st.stop()
one, two = st.columns([3, 4], vertical_alignment="bottom")
with one:
    label = st.selectbox(
        "Label",
        found,
        format_func=lambda name: name.replace("_", " "),
        key="cells_label",
        bind="query-params",
    )
label = label if label in found else found[0]
row = result.label_index(label)
units = [int(unit) for unit in result.best[0, row]]
with two:
    rank = st.segmented_control(
        "Unit, by rank where chosen",
        list(range(1, len(units) + 1)),
        default=1,
        required=True,
        key="cells_rank",
        bind="query-params",
    )
unit = units[(rank if rank in range(1, len(units) + 1) else 1) - 1]
if here.ids:
    shown = work.along(loaded, here.ids, result.place(unit))
    token_strip(
        shown.tokens,
        shown.values.tolist(),
        label=shown.unit,
        unit="",
        chosen=here.position,
        key="cells-strip",
        on_pick=selection.pick_position,
    )
    with st.expander("The same as a curve, beside the shuffled text"):
        chart(shown, shown.figure, key="cells-curve", alt="one unit along the text, and with its tokens shuffled")
else:
    st.info("Type a text in the sidebar to see the unit along it.")
with st.expander("Every unit of this label"):
    draw = partial(result.label_figure, label)
    chart(result, draw, key="cells-units", alt="correlation of all units where chosen and on other files")
with st.expander("Table"):
    frame = result.to_frame()
    st.dataframe(frame[frame["label"] == label], hide_index=True)
footer(result)
