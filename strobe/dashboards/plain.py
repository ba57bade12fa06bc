"""Text of users and files, shown as it is: on a page everything else is Markdown, in which a picture is a request to
whoever the text names, and a dollar sign a formula.
"""

import re

from strobe.core.tokens import show

# A backslash before any of ASCII's punctuation is the character itself (CommonMark 0.31, section 2.4).
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def plain(text: str) -> str:
    """Markdown that shows `text` and does nothing else.

    >>> plain("![a](http://b/c.png)")
    '\\\\!\\\\[a\\\\]\\\\(http\\\\:\\\\/\\\\/b\\\\/c\\\\.png\\\\)'
    """
    return _PUNCTUATION.sub(r"\\\1", text)


def sentence(error: BaseException | str) -> str:
    """What an error says, as a sentence to show.

    >>> sentence(ValueError("no model"))
    'No model'
    """
    text = str(error)
    return plain(text[:1].upper() + text[1:])


def code(text: str, limit: int) -> str:
    """`text` as Markdown's code, on one line with nothing hidden, cut to `limit` characters.

    >>> code("a`b ", 9)
    '`aˋb·`'
    """
    return f"`{show(text, limit).replace('`', 'ˋ')}`"
