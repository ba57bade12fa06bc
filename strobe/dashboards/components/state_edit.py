"""Changing a carry from a page: what to change, the job that runs it, and the three runs side by side."""

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from strobe.core.tokens import escape_html, show
from strobe.dashboards import selection, work
from strobe.dashboards.components.charts import chart
from strobe.dashboards.components.halves import halves
from strobe.dashboards.components.job_panel import job_panel
from strobe.dashboards.components.kept import kept_result, say_if_partial
from strobe.dashboards.jobs import runner
from strobe.dashboards.loading import Loaded
from strobe.dashboards.plain import code
from strobe.dashboards.selection import Selection

if TYPE_CHECKING:
    from strobe.probes.states import StateIntervention

_KINDS = ["scale", "zero", "splice"]


def state_edit(loaded: Loaded, here: Selection) -> "StateIntervention | None":
    """The section that edits the carry at the selected token; returns the result it shows, if there is one."""
    token = code(here.tokens[here.position], 24)
    st.subheader(f"Change the carry after token {here.position}  {token}", anchor=False)
    settings, problem = _settings()
    key = work.edit_key(loaded.source, here.subject, here.layer, here.position, settings)
    result: "StateIntervention | None" = kept_result(key)
    job = runner().get(key)
    busy = job is not None and not job.finished
    label = f"{settings['kind'].capitalize()} the carry of block {here.layer} after token {here.position}"
    st.button(
        "Run again" if result is not None else "Run the edit",
        type="secondary" if result is not None else "primary",
        icon=":material/play_arrow:",
        key="edit-run",
        on_click=start,
        args=(key, label, loaded, here, settings),
        disabled=busy or bool(problem),
        help=problem or None,
    )
    if problem:
        st.caption(problem)
    if job_panel(key) or result is None:
        return None
    say_if_partial(result)
    _show(result)
    return result


def start(key: str, label: str, loaded: Loaded, here: Selection, settings: dict[str, Any]) -> None:
    """Run the edit in the background, or attach to the same edit that runs."""
    what = (key, loaded.source.name, here.subject, here.layer, here.position, settings)
    runner().submit(key, label, lambda tick: work.edit_state(*what, tick))


def _settings() -> tuple[dict[str, Any], str]:
    """(arguments of `state_intervention`, what is missing or empty)."""
    first, second, third, fourth = st.columns([2.2, 3, 1.6, 1.6], vertical_alignment="bottom")
    with first:
        kind = (
            st.segmented_control("Edit", _KINDS, default="zero", required=True, key="edit", bind="query-params")
            or "zero"
        )
    value, splice, problem = None, None, ""
    with second:
        if kind == "scale":
            value = float(
                st.number_input("Multiply the memory by", -1000.0, 1000.0, 0.5, 0.1, key="value", bind="query-params")
            )
        elif kind == "splice":
            typed = st.text_input("Carry of this text", max_chars=2000, key="splice", bind="query-params") or ""
            splice = selection.clean(typed)
            problem = "" if splice.strip() else "Type the text whose carry is to be put in."
        else:
            st.caption("The memory is set to 0; the layer's short windows are left.")
    with third:
        new = st.number_input("New tokens", 0, 200, 24, key="new", bind="query-params")
    with fourth:
        temperature = st.number_input(
            "Temperature (0: greedy)", 0.0, 5.0, 0.0, 0.1, key="temperature", bind="query-params"
        )
    if value == 1.0:
        problem = "Multiplying by 1 changes nothing; give another number."
    settings = {
        "kind": kind,
        "value": value,
        "splice_text": splice,
        "max_new_tokens": int(new),
        "temperature": float(temperature),
    }
    return settings, problem


def _show(result: "StateIntervention") -> None:
    random = result.kl[2:]
    for place, kl, control in (
        ("first prediction it can reach", result.first_kl, random[:, result.position + 1]),
        ("last token", result.end_kl, random[:, -1]),
    ):
        times = kl[1] / np.median(control) if np.median(control) > 0 else np.inf
        st.markdown(
            f"**At the {place}**: KL(untouched ‖ edited) = **{kl[1]:.3g} nats**; random edits of the same norm: median "
            f"{np.median(control):.3g} ({control.min():.3g} to {control.max():.3g}, {len(control)} draws). "
            + (
                f"The edit does {times:,.{0 if times >= 10 else 1}f} × the median random edit."
                if np.isfinite(times)
                else ""
            )
        )
    left, right = halves("edit")
    with left:
        draw = partial(result.figure, at="first")
        alt = "next-token probabilities at the first prediction the edit can reach"
        chart(result, draw, key="edit-first", alt=alt, narrow=True)
    with right:
        draw = partial(result.figure, at="end")
        chart(result, draw, key="edit-end", alt="next-token probabilities at the last token", narrow=True)
    chart(
        result,
        result.kl_figure,
        key="edit-kl",
        alt="KL to the untouched run at every later token",
        on_pick=selection.pick_point,
    )
    if result.continuations and result.continuations[0]:
        st.markdown("**Continuations**, drawn with the same noise; what differs from the untouched run is marked.")
        names = ("Untouched", "Edited", "Random edit of the same norm")
        for column, name, words in zip(st.columns(3), names, result.continuations, strict=True):
            with column, st.container(border=True, height="stretch"):
                st.caption(name)
                st.html(continuation_html(words, result.continuations[0]))


def continuation_html(words: list[str], untouched: list[str]) -> str:
    """A continuation as escaped HTML; tokens that differ from the untouched run's at the same place are marked."""
    spans = []
    for i, word in enumerate(words):
        same = i < len(untouched) and untouched[i] == word
        style = "" if same else ' style="background:rgba(213,94,0,0.3);border-radius:3px"'
        spans.append(f"<span{style}>{escape_html(show(word))}</span>{'<br>' if chr(10) in word else ''}")
    block = (
        "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:13px;line-height:1.7;"
        "white-space:pre-wrap;word-break:break-all;direction:ltr;unicode-bidi:isolate"
    )
    return f'<div style="{block}">{"".join(spans)}</div>'
