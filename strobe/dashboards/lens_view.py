"""How much of a lens is drawn at once, and how: a figure while it is small, a canvas beyond, windows beyond that."""

from typing import Literal, NamedTuple

# The words of the page and the names of `LensTrajectory.statistic`.
STATISTICS: dict[str, Literal["kl", "entropy", "cross_entropy", "rank", "probability"]] = {
    "KL to the final prediction": "kl",
    "entropy": "entropy",
    "cross-entropy of the next token": "cross_entropy",
    "rank of the final token": "rank",
    "probability of the next token": "probability",
}
DEFAULT = "KL to the final prediction"

# Cells with a word in each that Plotly draws in about two seconds, and columns that leave a word room on a laptop.
_FIGURE_CELLS, _FIGURE_TOKENS = 1500, 24
# A canvas is at most 32767 pixels wide, and a screen may have two to the point.
_CANVAS_TOKENS, _CANVAS_ROWS = 256, 48


class View(NamedTuple):
    """Tokens ``first .. first + n_tokens``, the layers `rows` (at most `max_rows`), on a canvas or as a figure.

    `shortened`: not all tokens are shown. `message`: what is left out, or empty.
    """

    first: int
    n_tokens: int
    max_rows: int
    rows: list[int]
    canvas: bool
    shortened: bool
    message: str


def view(n_layers: int, n_tokens: int, position: int, first: int | None = None) -> View:
    """What to draw of layers 0 to `n_layers` and `n_tokens` tokens; `first` None puts `position` into the window."""
    from strobe.probes.lens.layer_axis import strided_layers

    layers = n_layers + 1
    if n_tokens <= _FIGURE_TOKENS and layers * n_tokens <= _FIGURE_CELLS:
        return View(0, n_tokens, max(layers, 2), list(range(layers)), False, False, "")
    shown = min(n_tokens, _CANVAS_TOKENS)
    last = n_tokens - shown
    start = min(max(0, position - shown // 2) if first is None else first, last)
    rows = strided_layers(n_layers, _CANVAS_ROWS)
    said = []
    if shown < n_tokens:
        said.append(f"Tokens {start} to {start + shown - 1} of {n_tokens}.")
    if len(rows) < layers:
        said.append(f"{len(rows)} of {layers} layers.")
    return View(start, shown, max(len(rows), 2), rows, True, shown < n_tokens, " ".join(said))
