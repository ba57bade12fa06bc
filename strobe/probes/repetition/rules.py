"""Python source as a string of grammar rules, one for each statement, so that repetition of structure can be seen.

After Dong et al. 2025 (ACL, long.48), who reduce generated tokens to statement-level grammar rules. Ours: Python only,
rules read off the library's own `ast` (a statement's node type with those of its direct parts) or `tokenize` (the kinds
of its tokens, keywords and operators kept); equal neighbours are not merged, as a statement written ten times is then
seen ten times.
"""

import ast
import io
import keyword
import tokenize
from typing import Literal, NamedTuple

Kind = Literal["ast", "tokenize"]
_LAYOUT = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER, tokenize.ENCODING}


class Rule(NamedTuple):
    """What one statement is made of, and the line it begins on (from 1)."""

    rule: str
    line: int


def rules_of(source: str, kind: Kind = "ast") -> tuple[list[Rule], str]:
    """(the rule of each statement in order, what stopped the reading or ``""``).

    "ast" needs source that parses: raises ValueError otherwise, naming the line. "tokenize" reads as far as it can, as
    a continuation may end in the middle of a statement.
    """
    if kind == "ast":
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError) as error:
            where = f" at line {error.lineno}" if isinstance(error, SyntaxError) else ""
            raise ValueError(
                f"rules of the syntax tree were asked for, and the source does not parse{where} ({error}); "
                "give kind='tokenize', which reads as far as it can"
            ) from error
        return [Rule(_shape(s), s.lineno) for s in _statements(tree)], ""
    if kind != "tokenize":
        raise ValueError(f"rules of kind {kind!r} were asked for; there are 'ast' and 'tokenize'")
    return _lines(source)


def _statements(node: ast.AST) -> list[ast.stmt]:
    """Every statement under `node`, as they stand in the source."""
    found = [child for child in ast.walk(node) if isinstance(child, ast.stmt)]
    return sorted(found, key=lambda s: (s.lineno, s.col_offset))


def _shape(statement: ast.stmt) -> str:
    parts = [
        type(child).__name__
        for child in ast.iter_child_nodes(statement)
        if not isinstance(child, ast.stmt | ast.expr_context)
    ]
    return f"{type(statement).__name__}({', '.join(parts)})"


def _lines(source: str) -> tuple[list[Rule], str]:
    rules: list[Rule] = []
    kinds: list[str] = []
    first, stopped = 1, ""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    while True:
        try:
            token = next(tokens, None)
        except (tokenize.TokenError, SyntaxError) as error:
            stopped = f"reading stopped after {len(rules)} statements: {error.args[0]}"
            break
        if token is None:
            break
        if token.type == tokenize.NEWLINE:
            rules.append(Rule(" ".join(kinds), first))
            kinds = []
        elif token.type not in _LAYOUT:
            first = token.start[0] if not kinds else first
            kept = token.type == tokenize.OP or keyword.iskeyword(token.string)
            kinds.append(token.string if kept else tokenize.tok_name[token.type])
    return rules, stopped
