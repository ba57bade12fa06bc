"""Layers by tokens on a canvas, for lenses too large for Plotly to draw with a word in every cell.

24 layers of 256 tokens take a browser about a second here and about ten with Plotly. The Plotly figure stays the form
for export. Words are drawn as text on a canvas, so nothing in them can be markup.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import streamlit as st
from streamlit.components.v2 import component

from strobe.core.tokens import show
from strobe.dashboards.lens_view import STATISTICS

_HTML = """
<div id="key"></div>
<div id="scroll"><div id="sheet"><canvas id="grid" role="img"></canvas><div id="mark"></div></div></div>
<div id="said" role="status"></div>
"""
_CSS = """
#scroll { overflow: auto; max-height: 640px;
          border: 1px solid var(--st-border-color); border-radius: var(--st-base-radius); }
#sheet { position: relative; width: max-content; }
#grid { display: block; cursor: pointer; }
#mark { position: absolute; top: 0; left: 0; box-sizing: border-box; pointer-events: none; border: 2px solid #D55E00; }
#key { display: flex; gap: 8px; align-items: center; font-size: 13px; color: var(--st-text-color); margin-bottom: 6px; }
#key b { font-size: 15px; font-weight: 600; margin-right: auto; }
#key i { width: 140px; height: 11px; background: linear-gradient(90deg, #fdea45, #cbba69, #7c7b78, #414d6b, #00204d); }
#said { font: 12px/1.5 ui-monospace, Menlo, Consolas, monospace; color: var(--st-text-color); white-space: pre-wrap;
        min-height: 3.2em; margin-top: 6px; }
"""
_JS = r"""
export default function (component) {
  const { data, parentElement, setTriggerValue } = component;
  const canvas = parentElement.querySelector("#grid");
  const said = parentElement.querySelector("#said");
  const W = 58, H = 22, left = 64, bottom = 26;
  const rows = data.layers.length, cols = data.tokens.length;
  const width = left + cols * W, height = rows * H + bottom;
  const ratio = window.devicePixelRatio || 1;
  const mark = parentElement.querySelector("#mark");
  const choose = (column) => {
    mark.hidden = column < 0 || column >= cols;
    Object.assign(mark.style, { left: `${left + column * W}px`, width: `${W}px`, height: `${rows * H}px` });
  };
  choose(data.chosen);
  const y = (r) => (rows - 1 - r) * H;
  const draw = () => {
    canvas.width = width * ratio; canvas.height = height * ratio;
    canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
    canvas.setAttribute("aria-label", data.label);
    const key = parentElement.querySelector("#key");
    const part = (tag, text) => { const e = document.createElement(tag); e.textContent = text; return e; };
    const high = part("span", `${data.high} ${data.unit}`);
    key.replaceChildren(part("b", data.title), part("span", data.low), part("i", ""), high);
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    g.clearRect(0, 0, width, height);
    g.font = "11px ui-monospace, Menlo, Consolas, monospace";
    g.textBaseline = "middle";
    // Cividis reversed, five stops (Nunez, Anderton & Renslow 2018): sure cells are light.
    const stops = [[253,234,69],[203,186,105],[124,123,120],[65,77,107],[0,32,77]];
    const colour = (v) => {
      const x = Math.min(1, Math.max(0, v)) * 4, i = Math.min(3, Math.floor(x)), f = x - i;
      return stops[i].map((c, k) => Math.round(c + (stops[i + 1][k] - c) * f));
    };
    const fit = (word, room) => {
      let w = word;
      while (w.length > 1 && g.measureText(w).width > room) w = w.slice(0, -2) + "…";
      return w;
    };
    for (let r = 0; r < rows; r++) {
      g.fillStyle = ink; g.textAlign = "right"; g.fillText(data.layers[r], left - 8, y(r) + H / 2);
      g.textAlign = "center";
      for (let c = 0; c < cols; c++) {
        const v = data.values[r][c], x = left + c * W;
        if (v === null) { g.fillStyle = "#8A8F98"; g.fillText("–", x + W / 2, y(r) + H / 2); continue; }
        const [R, G, B] = colour(v / data.full);
        g.fillStyle = `rgb(${R},${G},${B})`; g.fillRect(x, y(r), W - 1, H - 1);
        g.fillStyle = 0.299 * R + 0.587 * G + 0.114 * B > 140 ? "#111" : "#f4f4f4";
        g.fillText(fit(data.words[r][c], W - 6), x + W / 2, y(r) + H / 2);
      }
    }
    g.fillStyle = ink;
    for (let c = 0; c < cols; c++) g.fillText(fit(data.tokens[c], W - 6), left + c * W + W / 2, rows * H + bottom / 2);
  };
  // Another token chosen is another place of the mark; what is under it is drawn again only if it changed.
  const ink = getComputedStyle(canvas).getPropertyValue("--st-text-color") || "#222";
  const sheet = `${data.stamp} ${ink} ${ratio}`;
  if (canvas.dataset.sheet !== sheet) { draw(); canvas.dataset.sheet = sheet; }
  const cell = (event) => {
    const box = canvas.getBoundingClientRect();
    const c = Math.floor((event.clientX - box.left - left) / W);
    const r = rows - 1 - Math.floor((event.clientY - box.top) / H);
    return c >= 0 && c < cols && r >= 0 && r < rows ? [r, c] : null;
  };
  canvas.onmousemove = (event) => {
    const at = cell(event);
    if (!at) return;
    const [r, c] = at, v = data.values[r][c];
    const value = v === null ? "not a number" : `${(data.flipped ? 1 - v : v).toPrecision(4)} ${data.unit}`;
    const where = `layer ${data.layers[r]}, position ${data.first + c}, token ${data.tokens[c]}`;
    said.textContent = `${where}: ${value}\n${data.tops[r][c]}`;
  };
  canvas.onclick = (event) => {
    const at = cell(event);
    if (!at) return;
    choose(at[1]);
    setTriggerValue("picked", { x: data.first + at[1], y: data.rows[at[0]] });
  };
}
"""
_WORDS = {name: words for words, name in STATISTICS.items()}
_component = component("strobe_lens_grid", html=_HTML, css=_CSS, js=_JS)


def lens_grid(
    trajectory: Any,
    statistic: str,
    lens: str,
    *,
    first: int,
    n_tokens: int,
    rows: Sequence[int],
    chosen: int,
    key: str,
    on_pick: Callable[[list[dict[str, Any]]], None],
) -> None:
    """Draw ``trajectory.statistic(statistic, lens)`` at `rows`, tokens from `first`; clicks are given as by `chart`."""
    _component(
        key=key,
        data=grid_data(trajectory, statistic, lens, first=first, n_tokens=n_tokens, rows=rows, chosen=chosen),
        on_picked_change=lambda: on_pick([dict(p)] if (p := st.session_state[key].picked) else []),
    )


def grid_data(
    trajectory: Any, statistic: str, lens: str, *, first: int, n_tokens: int, rows: Sequence[int], chosen: int
) -> dict[str, Any]:
    """What the component is sent: values (None where not finite), the likeliest word of each cell, the five
    likeliest; ``stamp`` is equal where everything but the chosen token is.
    """
    values, index = trajectory.statistic(statistic, lens), trajectory.lens_index(lens)
    columns = range(first, min(first + n_tokens, values.shape[1]))
    cells = values[np.ix_(list(rows), list(columns))]
    if statistic == "rank":
        cells = np.log10(cells)
    if statistic == "probability":
        # Sure cells are light on every map: here those of high probability.
        cells = 1.0 - cells
    finite = cells[np.isfinite(cells)]
    ids = trajectory.top_ids[index][np.ix_(list(rows), list(columns))]
    p = trajectory.top_probabilities[index][np.ix_(list(rows), list(columns))]
    words = {int(i): show(trajectory.vocabulary[int(i)], 12) for i in np.unique(ids[..., :5])}
    units = {"rank": "log10 rank", "probability": ""}
    full = 1.0 if statistic == "probability" else float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    sheet = {
        "values": [[float(v) if math.isfinite(v) else None for v in row] for row in cells],
        "words": [[words[int(i)] for i in row] for row in ids[..., 0]],
        "tops": [
            [
                "   ".join(f"{words[int(i)]} {q:.1%}" for i, q in zip(i5, q5, strict=True))
                for i5, q5 in zip(a, b, strict=True)
            ]
            for a, b in zip(ids[..., :5], p[..., :5], strict=True)
        ],
        "tokens": [show(trajectory.tokens[c], 12) for c in columns],
        "layers": ["output" if r == trajectory.n_layers else str(r) for r in rows],
        "rows": [int(r) for r in rows],
        "full": full,
        "unit": units.get(statistic, "nats"),
        "title": f"{lens.capitalize()} lens: {_WORDS[statistic]}",
        "low": "1" if statistic == "probability" else "0",
        "high": "0" if statistic == "probability" else f"{full:.3g}",
        "label": f"{lens} lens, {statistic}: {len(rows)} layers by {len(columns)} tokens",
        "first": first,
        "flipped": statistic == "probability",
    }
    stamp = hashlib.sha256(json.dumps(sheet).encode()).hexdigest()
    return {**sheet, "stamp": stamp, "chosen": chosen - first}
