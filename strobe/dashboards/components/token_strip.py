"""A text as clickable tokens, each on a colour for its value; the token at the selection is outlined.

Drawn in the browser (a component, no iframe), so that hovering costs nothing. Tokens are set as text, never as markup.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from strobe.core.tokens import show

_HTML = '<div id="strip" role="group"></div><div id="said" role="status"></div>'
_CSS = """
#strip { font: 14px/1.95 ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre-wrap;
         word-break: break-all; direction: ltr; unicode-bidi: isolate; color: var(--st-text-color); max-height: 15em;
         overflow-y: auto; padding: 2px; }
#strip span { cursor: pointer; border-radius: 3px; padding: 1px 1px; }
#strip span:hover { outline: 1px solid var(--st-primary-color); }
#strip span:focus-visible { outline: 2px solid var(--st-primary-color); }
#strip span.chosen { outline: 2px solid var(--st-text-color); }
#strip span.missing { outline: 1px dashed #888; }
#said { font: 12px/1.6 ui-monospace, Menlo, Consolas, monospace; min-height: 1.7em; color: var(--st-text-color);
        opacity: 0.8; }
"""
_JS = r"""
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const strip = parentElement.querySelector("#strip");
  const said = parentElement.querySelector("#said");
  strip.setAttribute("aria-label", data.label);
  const all = document.createDocumentFragment();
  data.words.forEach((word, i) => {
    const span = document.createElement("span");
    span.textContent = word;
    span.tabIndex = 0;
    span.dataset.i = i;
    const value = data.values[i];
    if (value === null) span.className = "missing";
    else {
      const strength = Math.min(1, Math.abs(value) / data.full) * 0.7;
      span.style.background = `rgba(${value >= 0 ? "213,94,0" : "0,114,178"},${strength})`;
    }
    if (i === data.chosen) { span.classList.add("chosen"); span.setAttribute("aria-current", "true"); }
    all.appendChild(span);
    if (data.ends[i]) all.appendChild(document.createElement("br"));
  });
  strip.replaceChildren(all);
  const tell = (i) => {
    const value = data.values[i];
    const number = value === null ? "not a number" : `${value.toPrecision(4)} ${data.unit}`;
    said.textContent = `${i}  ${data.words[i]}   ${data.label}: ${number}`;
  };
  const index = (event) => event.target.dataset ? event.target.dataset.i : undefined;
  strip.onmousemove = (event) => { if (index(event) !== undefined) tell(Number(index(event))); };
  strip.onclick = (event) => { if (index(event) !== undefined) setTriggerValue("picked", Number(index(event))); };
  strip.onkeydown = (event) => {
    if ((event.key === "Enter" || event.key === " ") && index(event) !== undefined) {
      event.preventDefault();
      setTriggerValue("picked", Number(index(event)));
    }
  };
  if (data.chosen >= 0) tell(data.chosen);
}
"""
_component = component("strobe_token_strip", html=_HTML, css=_CSS, js=_JS)


def token_strip(
    tokens: Sequence[str],
    values: Sequence[float],
    *,
    label: str,
    unit: str,
    chosen: int,
    key: str,
    on_pick: Callable[[int], None],
) -> None:
    """Show `tokens` coloured by `values` (vermilion above zero, blue below, the largest in full colour).

    `on_pick` is given the position of a clicked token, before the page is drawn again.
    """
    _component(
        key=key,
        data=strip_data(tokens, values, label=label, unit=unit, chosen=chosen),
        on_picked_change=lambda: _pick(key, on_pick),
    )


def strip_data(tokens: Sequence[str], values: Sequence[float], *, label: str, unit: str, chosen: int) -> dict[str, Any]:
    """What the component is sent. NaN and infinities become None: JSON has no word for them."""
    finite = [float(v) if math.isfinite(v) else None for v in values]
    full = max((abs(v) for v in finite if v is not None), default=0.0) or 1.0
    return {
        "words": [show(t) for t in tokens],
        "ends": ["\n" in t for t in tokens],
        "values": finite,
        "full": full,
        "label": label,
        "unit": unit,
        "chosen": chosen,
    }


def _pick(key: str, on_pick: Callable[[int], None]) -> None:
    picked = st.session_state[key].picked
    if picked is not None:
        on_pick(int(picked))
