"""What is looked at: model, text, layer, position. It lives in the URL, so that every view is a link.

The widgets are bound to the query string; what comes out of them is checked again here, because limits of a widget are
enforced by the browser alone. A chart that is clicked writes the key of the widget it stands for.
"""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from strobe.dashboards import loading
from strobe.dashboards.plain import code, plain
from strobe.dashboards.problems import is_users

EXAMPLE = "def area(radius):\n    return 3.14159 * radius ** 2\n"
# Characters kept of a text: it travels in the address.
MAX_CHARACTERS = 6000
# Tokens that are analysed; a lens holds layers × tokens × vocabulary for a moment.
MAX_TOKENS = 512
_SELECTION = "_strobe_selection"


@dataclass(frozen=True)
class Selection:
    """The selection as it was checked. `loaded` is None where `problem` says why there is no model.

    `tokens` and `ids` are those analysed: at most `MAX_TOKENS` of the text's `n_tokens`. `notes`: what was put right.
    """

    model_name: str
    loaded: loading.Loaded | None
    problem: str
    text: str
    ids: tuple[int, ...] = ()
    tokens: tuple[str, ...] = ()
    n_tokens: int = 0
    layer: int = 0
    position: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def subject(self) -> str | tuple[int, ...]:
        """What a probe is given: the text, or the analysed tokens where the text has more."""
        return self.text if self.n_tokens == len(self.ids) else self.ids


def choose() -> Selection:
    """Draw the widgets of the selection where they are asked for, and return what they say."""
    made = _choose()
    st.session_state[_SELECTION] = made
    return made


def current() -> Selection:
    """The selection of this run."""
    return st.session_state[_SELECTION]


def require() -> tuple[loading.Loaded, Selection]:
    """The model and selection for a page that needs both; otherwise say what is missing and end the run."""
    here = current()
    if here.loaded is None:
        st.error(plain(here.problem or "Choose a model in the sidebar."), icon=":material/error:")
        st.stop()
    if loaded_without_text(here):
        st.info("This model came without a tokenizer, so it cannot be shown a text. Put tokenizer.json in its folder.")
        st.stop()
    if not here.ids:
        st.info("Type a text in the sidebar to look at.", icon=":material/edit:")
        st.stop()
    assert here.loaded is not None
    return here.loaded, here


def loaded_without_text(here: Selection) -> bool:
    """Whether the model takes token ids or numbers only."""
    return here.loaded is not None and here.loaded.model.tokenizer is None


def clean(text: str) -> str:
    """`text` as UTF-8 can hold it: halves of surrogate pairs, which no encoding has, become U+FFFD.

    >>> clean("a\\ud800b") == "a\\ufffdb"
    True
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def within(value: Any, low: int, high: int, what: str) -> tuple[int, str]:
    """`value` as a whole number in [low, high], and a note where it had to be changed.

    >>> within(7, 0, 3, "layer")
    (3, 'layer 7 does not exist here (0 to 3); showing 3')
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return low, f"{what} {value!r} is not a number; showing {low}"
    inside = min(max(number, low), high)
    return (
        inside,
        "" if inside == number else f"{what} {number} does not exist here ({low} to {high}); showing {inside}",
    )


def pick_position(position: Any) -> None:
    """Make `position` the selected one (called before the widgets are drawn, from a click)."""
    if isinstance(position, int | float) and position >= 0:
        st.session_state["position"] = int(position)


def pick_lens_cell(points: list[dict[str, Any]]) -> None:
    """Select the token of a clicked cell of the lens, and the block whose output its row is (row 0 has none)."""
    if not points:
        return
    pick_position(points[0].get("x"))
    row = points[0].get("y")
    if isinstance(row, int | float) and row >= 1:
        st.session_state["layer"] = int(row) - 1


def pick_point(points: list[dict[str, Any]]) -> None:
    """Select the token of a clicked point of a chart whose x is the position."""
    if points:
        pick_position(points[0].get("x"))


def _choose() -> Selection:
    notes: list[str] = []
    name = _model_name()
    loaded, problem = _open(name)
    text = clean(
        st.text_area("Text", EXAMPLE, height=150, max_chars=MAX_CHARACTERS, key="text", bind="query-params") or ""
    )
    if len(text) > MAX_CHARACTERS:
        notes.append(f"the text has {len(text)} characters; the first {MAX_CHARACTERS} are used")
        text = text[:MAX_CHARACTERS]
    made = Selection(name, loaded, problem, text, notes=notes)
    if loaded is None:
        st.error(plain(problem), icon=":material/error:")
        return made
    ids, tokens = _tokens(loaded, text, notes)
    n_tokens = len(ids)
    if n_tokens > MAX_TOKENS:
        notes.append(f"the text has {n_tokens} tokens; the first {MAX_TOKENS} are analysed")
        ids, tokens = ids[:MAX_TOKENS], tokens[:MAX_TOKENS]
    left, right = st.columns(2)
    with left:
        layer = _number("Layer", "layer", loaded.n_layers - 1, (loaded.recurrent or (0,))[0], notes)
    with right:
        position = _number("Position", "position", max(len(ids) - 1, 0), min(4, max(len(ids) - 1, 0)), notes)
    at = f" · token {position} {code(tokens[position], 16)}" if tokens else ""
    st.caption(f"Block {layer}: {loaded.mixers[layer]}{at}")
    for note in notes:
        st.warning(plain(note), icon=":material/info:")
    return Selection(name, loaded, "", text, ids, tokens, n_tokens, layer, position, notes)


def _model_name() -> str:
    names = loading.bundled()
    # What was typed, or came with the address, stays among the choices.
    typed = st.session_state.get("model") or st.query_params.get("model")
    chosen = st.selectbox(
        "Model",
        [*names, *([typed] if typed and typed not in names else [])],
        index=_first_that_reads(names),
        accept_new_options=True,
        placeholder="a folder with a checkpoint",
        help="A bundled model, or type the path of a folder with config.json and model.safetensors.",
        key="model",
        bind="query-params",
    )
    return str(chosen or "")


def _first_that_reads(names: list[str]) -> int | None:
    """The bundled model to begin with: one that can be shown a text, where there is one."""
    for i, name in enumerate(names):
        if (loading.find(name).folder / "tokenizer.json").is_file():
            return i
    return 0 if names else None


def _open(name: str) -> tuple[loading.Loaded | None, str]:
    if not name.strip():
        return None, "No model is chosen. Choose one in the sidebar, or type the path of a folder with a checkpoint."
    try:
        # A model in memory is there at once: no spinner for the browser to draw and take away.
        with nullcontext() if loading.is_open(name) else st.spinner(f"Loading {plain(name)}"):
            return loading.open_model(name), ""
    except Exception as error:
        if not is_users(error):
            raise
        return None, _sentence(error)


def _sentence(error: BaseException) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]


def _tokens(loaded: loading.Loaded, text: str, notes: list[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    if not text.strip():
        return (), ()
    if loaded.model.tokenizer is None:
        notes.append("This model came without a tokenizer, so it cannot be shown a text; Lens and States need one.")
        return (), ()
    with loaded.lock:
        row = loaded.model.tokenize(text)[0][0]
        return tuple(int(i) for i in row), tuple(str(t) for t in loaded.model.to_str_tokens(row))


def _number(label: str, key: str, high: int, default: int, notes: list[str]) -> int:
    """A number widget from 0 to `high`; what does not fit in it any more is moved inside, and said."""
    if key in st.session_state:
        # A value beyond the limit (the model or text has changed since) would be an error of the widget.
        inside, note = within(st.session_state[key], 0, high, key)
        if note:
            st.session_state[key] = inside
            notes.append(note)
    number = st.number_input(label, 0, high, default, 1, key=key, bind="query-params")
    checked, note = within(number, 0, high, key)
    notes.extend([note] if note else [])
    return checked
