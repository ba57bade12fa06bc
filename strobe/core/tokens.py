"""Token text made visible and safe: what a token is, on one line, in HTML and in Plotly's own little markup.

Tokens are data from a model and a stranger's text. They hold line ends, control and direction-changing characters, and
things that look like markup; none of it may vanish, reorder the words around it, or be executed.
"""

import html
import math
import unicodedata
from collections.abc import Sequence
from typing import Any

_VISIBLE = {"\n": "⏎", "\t": "⇥", "\r": "␍", " ": "·"}
# Control, format (all direction marks are Cf), private, surrogate, unassigned, and every separator but the plain space.
_HIDDEN = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp", "Zs"})

# Okabe and Ito's vermilion and blue: told apart under every common colour blindness.
_POSITIVE, _NEGATIVE = "213,94,0", "0,114,178"
# Above 0.75 the text on the colour falls under 4:1 contrast on a light or a dark page.
_MAX_ALPHA = 0.7

_BLOCK_STYLE = (
    "font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:15px;line-height:1.9;"
    "white-space:pre-wrap;word-break:break-all;direction:ltr;unicode-bidi:isolate"
)


def show(token: str, limit: int | None = None) -> str:
    """`token` on one line with nothing hidden; an empty token is ``∅``. Not yet escaped: see `escape_html`.

    A space is ``·``, line ends and tabs have their signs, other invisible characters their code point. With `limit`, a
    longer text is cut to that many characters, the last of them ``…``.

    >>> show(" the\\n"), show("a\\u202eb"), show("")
    ('·the⏎', 'a\\\\u202eb', '∅')
    """
    text = "".join(_show_character(c) for c in token) or "∅"
    return text if limit is None or len(text) <= limit else text[: max(limit - 1, 0)] + "…"


def _show_character(character: str) -> str:
    if character in _VISIBLE:
        return _VISIBLE[character]
    # U+FFFD is what a decoder puts for bytes that are no text: as a code point it is not taken for a glyph.
    if unicodedata.category(character) in _HIDDEN or character == "\ufffd":
        code = ord(character)
        return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
    return character


def escape_html(text: str) -> str:
    """`text` for HTML, in an element or in a quoted attribute."""
    return html.escape(text, quote=True)


def escape_plotly(text: str) -> str:
    """`text` for a Plotly label, tick or hover text, where it is shown as it is.

    Plotly renders tags such as ``<b>`` and ``<a href>``, sets text between dollar signs in TeX where MathJax is loaded,
    and fills in ``%{...}`` in templates. Quotes are left: Plotly would show the entity.
    """
    return html.escape(text, quote=False).replace("$", "&#36;").replace("%{", "&#37;{")


def token_html(
    tokens: Sequence[str],
    values: Any,
    *,
    name: str = "activation",
    unit: str = "",
    vmax: float | int | None = None,
    scale_note: str = "scale of this text",
) -> str:
    """Text with each token on a colour: vermilion for positive, blue for negative, stronger for larger; after Karpathy.

    `values` is one number per token; `vmax` is what gets the full colour, None for the largest absolute finite value
    (say where it comes from in `scale_note`: scales differ between texts unless you give one). Not finite is a dashed
    outline, and beyond `vmax` a solid one, never a colour. Returns HTML without scripts, with hover titles and a
    legend.

    Raises ValueError if the numbers and tokens differ in count, or `vmax` is not positive and finite.
    """
    numbers = [float(value) for value in values]
    if len(numbers) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens and {len(numbers)} values; give one value for each token")
    if vmax is None:
        vmax = max((abs(x) for x in numbers if math.isfinite(x)), default=0.0) or 1.0
    elif not (math.isfinite(vmax) and vmax > 0):
        raise ValueError(f"vmax is {vmax}; give the positive number that gets the full colour")
    spans = "".join(
        _span(token, x, i, name, unit, vmax) for i, (token, x) in enumerate(zip(tokens, numbers, strict=True))
    )
    legend = f"{name}: blue −{vmax:.3g}, white 0, vermilion +{vmax:.3g}{f' {unit}' if unit else ''} ({scale_note})"
    if not all(math.isfinite(x) for x in numbers):
        legend += "; dashed: not a finite number"
    if any(math.isfinite(x) and abs(x) > vmax for x in numbers):
        legend += "; outlined: beyond the scale"
    label = escape_html(f"text coloured by {name}")
    return (
        f'<div role="group" aria-label="{label}"><div style="{_BLOCK_STYLE}">{spans}</div>'
        f'<div style="font-size:12px;opacity:0.8">{escape_html(legend)}</div></div>'
    )


def _span(token: str, value: float, index: int, name: str, unit: str, vmax: float) -> str:
    if math.isfinite(value):
        colour = _POSITIVE if value >= 0 else _NEGATIVE
        style = f"background:rgba({colour},{min(1.0, abs(value) / vmax) * _MAX_ALPHA:.3f})"
        if abs(value) > vmax:
            style += f";outline:1px solid rgb({colour})"
        number = f"{value:+.4g}{f' {unit}' if unit else ''}"
    else:
        style, number = "outline:1px dashed #888", str(value)
    title = escape_html(f"{index} {show(token)} {name} {number}")
    line_end = "<br>" if "\n" in token else ""
    return f'<span style="{style}" title="{title}">{escape_html(show(token))}</span>{line_end}'
