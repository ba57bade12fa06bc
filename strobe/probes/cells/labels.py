"""What is true of each place in Python source, by the standard `tokenize`: in a string, how deep, which column.

A label belongs to a *boundary* between characters: entry i is what holds once i characters are read, so that it can be
compared with a carry, which is taken after its token. Between the first character of a string and its last one the
boundary is inside the string; before its first and after its last it is not. The targets are ours (`LABELS`).

An f-string is one string to Python 3.11's `tokenize`; from 3.12 on its replacement fields are code, and so here.
"""

import io
import keyword
import tokenize
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

LABELS: dict[str, str] = {
    "in_string": "inside a string literal",
    "in_comment": "inside a comment",
    "in_brackets": "inside (), [] or {}",
    "bracket_depth": "number of open brackets",
    "indentation": "columns of leading white space of the line",
    "line_position": "characters since the line began",
    "in_definition": "in the head of def or class",
    "in_import": "in an import statement",
    "in_condition": "in the head of if, elif or while",
    "in_loop": "in the head of for",
    "in_return": "in a return or yield statement",
}
GRADED = frozenset({"bracket_depth", "indentation", "line_position"})
"""Labels that count; the others are 0 or 1."""

_CONTEXTS = {
    "def": "in_definition",
    "class": "in_definition",
    "import": "in_import",
    "from": "in_import",
    "if": "in_condition",
    "elif": "in_condition",
    "while": "in_condition",
    "for": "in_loop",
    "return": "in_return",
    "yield": "in_return",
}
_SKIPPED = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER)
# Token types that only newer Pythons have.
_FSTRING_START, _FSTRING_END = (getattr(tokenize, name, -1) for name in ("FSTRING_START", "FSTRING_END"))
_FSTRING_MIDDLE = getattr(tokenize, "FSTRING_MIDDLE", -1)


class _Spans:
    """Labels of one text, filled span by span."""

    def __init__(self, text: str, starts: np.ndarray) -> None:
        self.starts = starts
        self.values = {name: np.zeros(len(text) + 1, np.float32) for name in LABELS}

    def at(self, place: tuple[int, int]) -> int:
        row, column = place
        return int(self.starts[row - 1]) + column

    def inside(self, name: str, start: int, stop: int) -> None:
        """Boundaries strictly between `start` and `stop` are inside."""
        self.values[name][start + 1 : stop] = 1


def source_labels(text: str) -> dict[str, Float[np.ndarray, " boundaries"]]:
    """Every label of `LABELS` at each of the len(text) + 1 boundaries of Python source.

    Raises ValueError where `tokenize` cannot read `text`, or it has line ends other than a newline alone.
    """
    if "\r" in text or "\f" in text:
        raise ValueError(
            "labels were asked for; the text has carriage returns or form feeds, which do not count as columns count; "
            "replace them with newlines"
        )
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError) as error:
        raise ValueError(
            f"labels were asked for; tokenize cannot read this text as Python ({error.args[0]}); give whole statements"
        ) from error
    lines = text.split("\n")
    spans = _Spans(text, np.cumsum([0, *(len(line) + 1 for line in lines)]))
    _strings(spans, tokens)
    _brackets(spans, tokens, len(text))
    _layout(spans, lines)
    _contexts(spans, tokens)
    return spans.values


def _strings(spans: _Spans, tokens: list[tokenize.TokenInfo]) -> None:
    depth, opened = 0, 0
    for token in tokens:
        start, stop = spans.at(token.start), spans.at(token.end)
        if token.type == tokenize.COMMENT:
            # A comment lasts until the line end, so the boundary before that is inside.
            spans.inside("in_comment", start, stop + 1)
        elif token.type == tokenize.STRING:
            spans.inside("in_string", start, stop)
        elif token.type == _FSTRING_START:
            depth, opened = depth + 1, start
            spans.inside("in_string", start, stop + 1)
        elif token.type == _FSTRING_MIDDLE:
            spans.inside("in_string", start - 1, stop + 1)
        elif token.type == _FSTRING_END:
            depth -= 1
            spans.inside("in_string", max(opened, start - 1), stop)


def _brackets(spans: _Spans, tokens: list[tokenize.TokenInfo], n: int) -> None:
    change = np.zeros(n + 1, np.float32)
    for token in tokens:
        if token.type == tokenize.OP and token.string in "()[]{}":
            change[spans.at(token.end)] += 1 if token.string in "([{" else -1
    depth = spans.values["bracket_depth"] = np.cumsum(change, dtype=np.float32)
    spans.values["in_brackets"] = (depth > 0).astype(np.float32)


def _layout(spans: _Spans, lines: list[str]) -> None:
    for start, line in zip(spans.starts, lines, strict=False):
        column = np.arange(len(line) + 1)
        here = slice(int(start), int(start) + len(line) + 1)
        spans.values["line_position"][here] = column
        # While the white space is read, only what was read of it counts: a label never looks ahead.
        spans.values["indentation"][here] = np.minimum(column, len(line) - len(line.lstrip(" \t")))


def _contexts(spans: _Spans, tokens: list[tokenize.TokenInfo]) -> None:
    for words in _statements(tokens):
        first = next((w for w in words if w.string != "async"), words[0])
        name = _CONTEXTS.get(first.string) if keyword.iskeyword(first.string) else None
        if name is not None:
            spans.values[name][spans.at(first.end) : spans.at(words[-1].end)] = 1


def _statements(tokens: list[tokenize.TokenInfo]) -> Iterator[list[tokenize.TokenInfo]]:
    """Simple statements, and heads of compound ones up to their colon: the tokens of each."""
    words: list[tokenize.TokenInfo] = []
    depth = lambdas = 0
    for token in tokens:
        if token.type in _SKIPPED:
            continue
        words.append(token)
        if token.type == tokenize.OP and token.string in "([{":
            depth += 1
        elif token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
        ended = token.type == tokenize.NEWLINE or (depth == 0 and token.string == ";")
        if depth == 0 and token.string == "lambda":
            lambdas += 1
        elif depth == 0 and token.type == tokenize.OP and token.string == ":":
            ended, lambdas = lambdas == 0, max(lambdas - 1, 0)
        if ended:
            yield words
            words, lambdas = [], 0
