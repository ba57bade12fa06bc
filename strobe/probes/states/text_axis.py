"""Tokens along an axis, and under the pointer, in the figures of a carry and of its edits."""

from typing import Any

from strobe.core import figures
from strobe.core.tokens import escape_plotly, show

# Above this many tokens the ticks of an axis would overlap.
_LABELLED = 80


def time_axis(fig: Any, tokens: list[str], title: str, *, axis: Any = "x", first: int = 0) -> None:
    """Label `axis` with the tokens from position `first` on, or with their positions where the ticks would overlap."""
    if len(tokens) <= _LABELLED:
        figures.token_axis(fig, tokens, axis, first=first, title=title)
        return
    update = fig.update_xaxes if axis == "x" else fig.update_yaxes
    update(
        title_text=f"{title} (position)", range=[first - 0.5, first + len(tokens) - 0.5], showgrid=False, zeroline=False
    )


def hover(tokens: list[str]) -> list[str]:
    """What is shown at each token when a pointer rests on it."""
    return [f"position {i} · {escape_plotly(show(token, 20))}" for i, token in enumerate(tokens)]
