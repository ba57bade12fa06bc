"""Oracle: Python's HTML parser, which reads what a browser would, and Unicode's own character classes."""

import re
import sys
import unicodedata
from html.parser import HTMLParser

import pytest

from strobe.core.tokens import escape_html, escape_plotly, show, token_html

NASTY = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' style='position:fixed",
    "&lt;b&gt;",
    "</span></div>",
    "a\u202eb\u2066c",
    "\x00\x1b[31m",
    "line\nend\r\n",
    "\ud800",
    "$x^2$ %{y}",
    "",
]


class Reader(HTMLParser):
    """Tags, attributes and the text of each span."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []
        self.spans: list[str] = []
        self.open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "span":
            self.attributes.append(dict(attrs))
            self.spans.append("")
            self.open = True

    def handle_endtag(self, tag: str) -> None:
        self.open = self.open and tag != "span"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.spans[-1] += data


def read(markup: str) -> Reader:
    reader = Reader()
    reader.feed(markup)
    reader.close()
    return reader


def test_no_character_of_unicode_is_shown_as_nothing_or_turns_the_line():
    hidden = [
        c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) in ("Cc", "Cf", "Zs", "Zl", "Zp")
    ]
    # One of each kind that has thousands: surrogates, private, unassigned, and the sign for bytes that are no text.
    for character in [*hidden, "\ud800", "\udfff", "\ue000", "\U0010fffd", "\u0378", "\ufffd"]:
        shown = show(character)
        assert all(unicodedata.category(c)[0] in "LNPS" for c in shown), hex(ord(character))
        assert shown != character, hex(ord(character))


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        (" the", "·the"),
        ("\n\t\r", "⏎⇥␍"),
        ("\u202e", "\\u202e"),
        ("\U000e0041", "\\U000e0041"),
        ("\u00a0", "\\u00a0"),
        ("\ufffd", "\\ufffd"),
        ("日本", "日本"),
        ("é", "é"),
        ("", "∅"),
    ],
)
def test_how_tokens_are_shown(token: str, shown: str):
    assert show(token) == shown


def test_a_cut_is_visible_and_no_longer_than_asked():
    assert show("abcdef", 6) == "abcdef"
    assert show("abcdefg", 6) == "abcde…"
    assert show("\u202e\u202e", 6) == "\\u202…"


@pytest.mark.parametrize("token", NASTY)
def test_a_token_is_text_and_never_markup(token: str):
    reader = read(token_html([token], [1.0]))
    assert set(reader.tags) <= {"div", "span", "br"}
    assert reader.spans == [show(token)]
    assert set(reader.attributes[0]) == {"style", "title"}
    assert show(token) in str(reader.attributes[0]["title"])


@pytest.mark.parametrize("token", NASTY)
def test_escaped_text_is_read_back_as_it_was(token: str):
    reader = read(f"<span>{escape_html(show(token))}</span>")
    assert reader.spans == [show(token)]
    assert "<" not in escape_plotly(token)
    assert "$" not in escape_plotly(token)
    assert "%{" not in escape_plotly(token)
    assert read(f"<span>{escape_plotly(show(token))}</span>").spans == [show(token)]


def backgrounds(values: list[float], **options) -> list[str]:
    reader = read(token_html(["a"] * len(values), values, **options))
    return [str(a["style"]) for a in reader.attributes]


def alpha(style: str) -> float:
    return float(re.findall(r"rgba\(\d+,\d+,\d+,([\d.]+)\)", style)[0])


def test_sign_is_the_hue_and_size_is_the_strength():
    strong, weak, zero, negative = backgrounds([2.0, 1.0, 0.0, -2.0])
    assert "213,94,0" in strong
    assert "0,114,178" in negative
    assert alpha(strong) == alpha(negative) == pytest.approx(0.7)
    assert alpha(weak) == pytest.approx(0.35)
    assert alpha(zero) == 0


def contrast(foreground: float, background: tuple[float, float, float]) -> float:
    """WCAG contrast of a grey on a colour, sRGB in [0, 1]."""

    def luminance(rgb: tuple[float, ...]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance((foreground,) * 3), luminance(background)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("value", [1.0, -1.0])
@pytest.mark.parametrize(("text", "page"), [(0.12, 1.0), (0.98, 0.06)], ids=["light", "dark"])
def test_text_on_the_strongest_colour_can_be_read(value: float, text: float, page: float):
    red, green, blue, strength = map(float, re.findall(r"[\d.]+", backgrounds([value])[0].partition("rgba")[2]))
    mixed = tuple(strength * c / 255 + (1 - strength) * page for c in (red, green, blue))
    assert contrast(text, mixed) >= 4.0  # pyright: ignore[reportArgumentType]


def test_not_finite_is_an_outline_and_not_a_colour():
    nan, inf, one = backgrounds([float("nan"), float("inf"), 1.0])
    for style in (nan, inf):
        assert "dashed" in style
        assert "background" not in style
    # And it does not set the scale.
    assert alpha(one) == pytest.approx(0.7)
    assert alpha(backgrounds([float("inf"), 0.5, 1.0])[1]) == pytest.approx(0.35)
    assert "not a finite number" in token_html(["a"], [float("nan")])


def test_beyond_a_given_scale_is_said():
    over, under = backgrounds([3.0, 0.5], vmax=1.0)
    assert alpha(over) == pytest.approx(0.7)
    assert "outline" in over
    assert "outline" not in under
    assert "beyond the scale" in token_html(["a"], [3.0], vmax=1.0)
    assert "beyond the scale" not in token_html(["a"], [3.0])


def test_all_zero_or_no_text_at_all():
    assert backgrounds([0.0, 0.0])[0].endswith("0.000)")
    assert read(token_html([], [])).spans == []


def test_counts_and_scales_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 tokens and 1 values"):
        token_html(["a", "b"], [1.0])
    for vmax in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="vmax"):
            token_html(["a"], [1.0], vmax=vmax)
