"""How the model repeats itself: in the page's text, in what it does with repeats, in what makes it loop."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import streamlit as st

from strobe.core.result import Result, load_result
from strobe.dashboards import repetition_work as work
from strobe.dashboards import selection
from strobe.dashboards.components import chart, footer, job_panel, kept_result, run_button, say_if_partial
from strobe.dashboards.jobs import runner
from strobe.dashboards.plain import sentence

if TYPE_CHECKING:
    from strobe.dashboards.components.charts import Draw

TITLE = "Repetition"
ICON = ":material/repeat:"
ORDER = 55
QUESTION = "Does the model repeat itself, what in it looks back at a repeat, and what makes it fall into a loop?"

_VIEWS = {
    "Text": "text",
    "Code": "structure",
    "Reinforcement": "reinforcement",
    "Heads": "heads",
    "Attribution": "attribution",
    "Greedy loop": "loop",
    "Features": "features",
}
_ABOUT = {
    "text": "**rep-n** is the share of n-grams that are not new (Welleck et al. 2020). The **Rep Score** is rep-1 over "
    "words; from 0.4 on, Yao et al. 2025 call a text repetitive.",
    "structure": "Python as a string of **grammar rules**, one a statement (after Dong et al. 2025; which rules, and "
    "that runs of any number of copies are found, is ours). A run is a unit of statements written over and over.",
    "reinforcement": "The page's text is repeated, and each copy's tokens are scored (Xu et al. 2022): their "
    "probability (**TP**), how many are likelier than at first (**IP**), how many are the most likely (**WR**).",
    "heads": "Random tokens, repeated once. An **induction** head looks behind the last occurrence (Olsson et al. "
    "2022). For a linear recurrent mixer its *effective attention* is read instead, which is ours. Any model shows "
    "what a repeat is worth to it: the loss of the second copy against the first's.",
    "attribution": "The logit of one next token less that of another, **shared out** over what wrote the residual "
    "stream, with the final norm's scale held: the parts add up (Elhage et al. 2021).",
    "loop": "Fed its own most likely token, a recurrent model is a map of its carry, and a loop in its text is a "
    "**cycle** of that map. How near does the carry come to where it was one period before? Ours.",
    "features": "Features of a sparse autoencoder, **turned up** one by one: does the model then repeat itself (Yao et "
    "al. 2025)? Then ablated, the autoencoder's error kept. The bar that a confirmed one has to clear is ours.",
}
# Tokens that a text is repeated to here: more takes minutes, and a key/value cache grows with them.
_MOST_REPEATED = 16_384
_FAST = ("text", "structure", "attribution")

st.title("Repetition", anchor=False)
loaded, here = selection.require()
label = (
    st.segmented_control("What", list(_VIEWS), default="Text", required=True, key="repeat", bind="query-params")
    or "Text"
)
view = _VIEWS[label]
st.markdown(_ABOUT[view])


def _settings() -> dict[str, Any]:
    """What is asked of the analysis in view, from its widgets."""
    subject = here.subject if isinstance(here.subject, str) else list(here.subject)
    if view == "text":
        return {"text": subject}
    if view == "structure":
        kind = st.segmented_control(
            "Rules", ["ast", "tokenize"], default="tokenize", required=True, key="repeat_rules", bind="query-params"
        )
        return {"source": here.text, "kind": kind or "tokenize"}
    if view == "reinforcement":
        copies = st.number_input("Copies", 2, 200, 40, key="repeat_copies", bind="query-params")
        if (total := int(copies) * len(here.ids)) > _MOST_REPEATED:
            st.info(
                f"{int(copies)} copies of a text of {len(here.ids)} tokens are {total} tokens, and this page goes to "
                f"{_MOST_REPEATED}; give a shorter text or fewer copies, or use the command `strobe repetition`.",
                icon=":material/info:",
            )
            st.stop()
        return {"sentences": [subject], "copies": int(copies)}
    if view == "heads":
        length = st.number_input("Tokens of a copy", 2, 100, 25, key="repeat_length", bind="query-params")
        return {"length": int(length)}
    if view == "attribution":
        return _answers()
    if view == "loop":
        new = st.number_input("New tokens", 8, 1000, 200, key="repeat_new", bind="query-params")
        return {"prompt": subject, "max_new_tokens": int(new)}
    left, right = st.columns(2)
    count = left.number_input("Candidates", 1, 64, 16, key="repeat_candidates", bind="query-params")
    kinds = ["greedy", "planted"]
    kind = right.segmented_control(
        "Loops", kinds, default="greedy", required=True, key="repeat_loops", bind="query-params",
        help="Greedy: continuations that loop by themselves. Planted: a line of code, repeated.",
    )  # fmt: skip
    return {"n_candidates": int(count), "loops": kind or "greedy"}


def _answers() -> dict[str, Any]:
    """The prediction of the token after the selected position, against another token."""
    at, last = here.position, len(here.ids) - 1
    st.caption(
        "The answer is the token that follows the selected position in the text (at the last one: its own token "
        "again). It is compared with the mean over the vocabulary, or with the token typed here."
    )
    other = st.text_input(
        "Compared with (one token; empty: the mean of all)", "", key="repeat_other", bind="query-params"
    )
    answer = here.ids[min(at + 1, last)]
    return {"prompts": [list(here.ids[: at + 1])], "answers": [answer], "others": [other] if other else None}


def _opened(key: str) -> Result | None:
    kept = kept_result(key)
    came_with = work.features_file(loaded.source) if view == "features" and kept is None else None
    if came_with is None:
        return kept
    st.caption("These came with the model, with the settings below; run the search to have your own.")
    return load_result(came_with)


def _draw(result: Any) -> None:
    """The figures and tables of the analysis in view."""
    figures: dict[str, tuple[Draw, str]] = {"main": (result.figure, f"{label.lower()}: the main figure")}
    if view == "heads":
        score = st.segmented_control(
            "Score",
            ["induction", "previous", "duplicate", "copying"],
            default="induction",
            required=True,
            key="repeat_score",
        )
        figures = {
            "main": (lambda **kw: result.figure(score or "induction", **kw), f"{score} score of each head"),
            "loss": (result.loss_figure, "loss on two copies"),
        }
    elif view == "attribution":
        figures["accumulated"] = (lambda **kw: result.figure(accumulated=True, **kw), "accumulated difference")
    elif view == "features":
        figures["ablation"] = (result.ablation_figure, "loops and loss with features ablated")
    st.text(result.summary())
    for name, (draw, alt) in figures.items():
        chart(result, draw, key=f"repeat-{view}-{name}", alt=alt)
    if view == "loop":
        st.code("".join(result.prompt + result.new), language=None, wrap_lines=True)
    if view == "features":
        st.caption("What the first prompt is continued with, untouched and with each candidate turned up:")
        names = ["untouched", *map(str, result.features)]
        st.dataframe({"feature": names, "continuation": result.texts}, hide_index=True)
    st.dataframe(result.to_frame(), hide_index=True)


settings = _settings()
key = work.repetition_key(view, loaded.source, settings)


def _start() -> None:
    what = (key, view, loaded.source.name, settings)
    runner().submit(key, label, lambda tick: work.analyse(*what, tick))


def _at_once(compute: Callable[[], Result]) -> Result | None:
    try:
        with loaded.lock:
            return compute()
    except (ValueError, IndexError) as error:
        st.info(sentence(error), icon=":material/info:")
        return None


if view in _FAST:
    result = _at_once(lambda: work.run(loaded.model, view, settings, lambda *_: None))
else:
    result = _opened(key)
    run_button("Run", _start, job=key, there=result is not None, key="repeat-run")
    if job_panel(key, kept=result is not None):
        st.stop()
    if result is not None:
        say_if_partial(result)
if result is None:
    st.stop()
_draw(result)
footer(result)
