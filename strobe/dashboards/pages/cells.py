"""Which number of the carry follows what the text is about, and the views around it: gates, errors, writes, A and B."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import streamlit as st

from strobe.core.result import Result
from strobe.dashboards import cells_work as work
from strobe.dashboards import loading, selection
from strobe.dashboards.components import chart, footer, job_panel, kept_result, run_button, token_strip
from strobe.dashboards.jobs import Tick, runner
from strobe.dashboards.plain import sentence
from strobe.dashboards.problems import is_users

if TYPE_CHECKING:
    from strobe.probes.cells import CellSearch, ErrorTypes, TokenImportance

TITLE = "Cells"
ICON = ":material/grid_view:"
ORDER = 25
QUESTION = "Which single number of the carry knows that we are inside a string, and is it better than chance?"

st.title("Interpretable cells", anchor=False)
loaded, here = selection.require()
_VIEWS = ("Cells", "Gates", "Errors", "Importance", "Transitions")
_ABOUT = {
    "Cells": "Karpathy, Johnson & Fei-Fei (2015) found LSTM cells that follow quotes and line length **by looking**. "
    "Here **every unit** of every carry is tried against labels that Python's own `tokenize` makes, chosen on some "
    "files and judged on others; the search, the labels and the controls are ours. The best of thousands always looks "
    "like something: compare the grey marks."
    + ("" if loaded.recurrent else " This model has no recurrence: units are channels of the **residual stream**."),
    "Gates": "How often each gate is nearly shut (below 0.1) or nearly open (above 0.9) along the page's text "
    "(Karpathy, Johnson & Fei-Fei 2015, figure 2). For a mixer that is linear in its carry, the **decay** of the old "
    "memory stands in the gate's place; that reading is ours. Grey: the same model, weights permuted.",
    "Errors": "Which tokens does the model get right that counting does not? Its loss in each class of held-out "
    "library tokens, beside a **Witten-Bell n-gram**. After the error analysis of Karpathy, Johnson & Fei-Fei (2015, "
    "section 4.4); these classes are ours.",
    "Importance": "What each token **wrote** into the selected block's carry is taken out again (where there is no "
    "such write, the memory is put back to what it was before): how much does the **last prediction** change? And how "
    "far is one important token from the next? Ours, the controls too.",
    "Transitions": "The selected block as a **dynamical system**, M_t = A_t M_(t-1) + B_t and what is read, token by "
    "token, beside a layer of a second model (after Sieber et al. 2024; which numbers are shown is ours).",
}


def _job(place: Any, key: str, words: tuple[str, str], label: str, start: Callable[[Tick], Path]) -> Result | None:
    """The kept result of the job `key`, or None; a button (first time, again) in `place` that starts it."""
    result: Result | None = kept_result(key)

    def _start() -> None:
        runner().submit(key, f"{label} of {loaded.source.name}", start)

    with place:
        run_button(words[0], _start, job=key, there=result is not None, key="cells-run", again=words[1])
    if job_panel(key, kept=result is not None) or result is None:
        return None
    if said := getattr(result, "partial", ""):
        st.warning(f"The run was {said}. {words[1]} for all.", icon=":material/info:")
    return result


def _answered(ask: Callable[[], Any]) -> Any:
    """What `ask` answers; where the probe refuses, its reason, and the run ends."""
    try:
        return ask()
    except Exception as error:
        if not is_users(error):
            raise
        st.info(sentence(error), icon=":material/info:")
        st.stop()


def _gates() -> None:
    result = _answered(lambda: work.gates(loaded, here.subject))
    chart(result, result.figure, key="cells-gates", alt="share of tokens at which each unit's gates are shut and open")
    for note in result.notes:
        st.caption(f"{sentence(note)}.")
    with st.expander("Table"):
        st.dataframe(result.to_frame(), hide_index=True)
    footer(result)


def _errors() -> None:
    columns = st.columns(5, vertical_alignment="bottom")
    asked = [
        columns[0].number_input("Files", 2, 64, 8, 2, key="cells_files_err", bind="query-params"),
        columns[1].number_input("Tokens of a file", 16, 1024, 256, 16, key="cells_length_err", bind="query-params"),
        columns[2].number_input("Order of the n-gram", 2, 8, 5, key="cells_order", bind="query-params"),
        columns[3].number_input(
            "Tokens counted", 1000, 2_000_000, 500_000, 1000, key="cells_counted", bind="query-params"
        ),
    ]
    settings: dict[str, Any] = dict(zip(("n_files", "length", "order", "n_train"), map(int, asked), strict=True))
    key = work.key_of(loaded.source, settings, "cell-errors")
    name = loaded.source.name
    start = partial(work.run_errors, key, name, settings)
    result = cast("ErrorTypes | None", _job(columns[4], key, ("Sort the errors", "Sort again"), "Errors", start))
    if result is None:
        return
    chart(result, result.figure, key="cells-errors", alt="loss of the model and of an n-gram in each class of token")
    with st.expander("Table, with tokens that only the model gets right"):
        examples = ["  ".join(map(repr, words)) for words in result.examples]
        st.dataframe(result.to_frame().assign(**{"only the model, e.g.": examples}), hide_index=True)
    footer(result)


def _importance() -> None:
    if here.layer not in loaded.recurrent:
        have = ", ".join(map(str, loaded.recurrent)) or "none"
        st.info(
            f"What tokens wrote into the carry of block {here.layer} was to be taken out; it is "
            f"{loaded.mixers[here.layer]}, which has no recurrent carry. Blocks of this model with one: {have}.",
            icon=":material/info:",
        )
        return
    key = work.key_of(loaded.source, {"subject": here.subject, "layer": here.layer}, "cell-importance")
    name = loaded.source.name
    start = partial(work.run_importance, key, name, here.subject, here.layer)
    words = (f"Take out each of {len(here.ids)} tokens", "Take out again")
    result = cast("TokenImportance | None", _job(st.container(), key, words, "Importance", start))
    if result is None:
        return
    alt = "change of the last prediction when each token's write is taken out"
    chart(result, result.figure, key="cells-importance", alt=alt, on_pick=selection.pick_point)
    share = st.slider("Share of tokens called important", 0.05, 0.5, 0.2, 0.05, key="cells_share", bind="query-params")
    _answered(lambda: result.intervals(share))
    draw = partial(result.interval_figure, share)
    chart(result, draw, key="cells-intervals", alt="distances between important tokens, beside shuffled importances")
    footer(result)


def _transitions() -> None:
    names, own = work.beside(), loaded.source.name
    others = ["none", *names]
    first = next((i for i, name in enumerate(others) if i and name != own), 0) if own in names else 0
    left, right = st.columns(2, vertical_alignment="bottom")
    with left:
        other = st.selectbox("Beside the model", others, first, key="cells_beside", bind="query-params")
    with right:
        at = st.number_input(
            "and its layer", 0, 999, 0, key="cells_beside_layer", bind="query-params", disabled=other == "none"
        )
    pairs = [(loaded, here.layer)]
    if other in names:
        pairs.append((loading.open_model(str(other)), int(at)))
    result = _answered(lambda: work.transitions(pairs, here.subject, here.text))
    alt = "moduli of eigenvalues, norms of write and read at each token, of each model and the control"
    chart(result, result.figure, key="cells-transitions", alt=alt, on_pick=selection.pick_point)
    with st.expander("Table"):
        st.dataframe(result.to_frame(), hide_index=True)
    footer(result)


view = st.segmented_control("View", _VIEWS, default="Cells", required=True, key="cells_view", bind="query-params")
view = view if view in _VIEWS else "Cells"
st.markdown(_ABOUT[view])
if loaded.model.tokenizer is None:
    st.info("This model came without a tokenizer, and cells follow text. Choose one that reads text.")
    st.stop()
if view != "Cells":
    {"Gates": _gates, "Errors": _errors, "Importance": _importance, "Transitions": _transitions}[view]()
    st.stop()
first, second, third = st.columns([2, 2, 5], vertical_alignment="bottom")
with first:
    files = st.number_input("Files (of each kind)", 2, 64, 16, 2, key="cells_files", bind="query-params")
with second:
    length = st.number_input("Tokens of a file", 16, 1024, 512, 16, key="cells_length", bind="query-params")
settings: dict[str, Any] = {"n_files": min(max(int(files), 2), 64), "length": min(max(int(length), 16), 1024)}
key = work.key_of(loaded.source, settings)


result = cast(
    "CellSearch | None",
    _job(third, key, ("Search every unit", "Search again"), "Cells",
         lambda tick: work.run(key, loaded.source.name, settings, tick)),
)  # fmt: skip
if result is None:
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
