"""Oracle: source labelled by hand, a mark under every boundary."""

import numpy as np
import pytest

from strobe.probes.cells.labels import LABELS, source_labels


def marks(text, name):
    """The label at each boundary but the first, one sign a character of `text`."""
    return "".join(str(int(x)) for x in source_labels(text)[name][1:])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        # After the opening quote one is inside, after the closing one no longer.
        ("in_string", "x = 'ab'\n", "000011100"),
        ("in_string", "'a' 'b'\n", "11001100"),
        ("in_string", "x # 'a'\n", "00000000"),
        ("in_string", "'''\n'''\n", "11111100"),
        ("in_comment", "x # 'a'\ny\n", "0011111000"),
        ("in_comment", "'#' # b\n", "00001110"),
        ("bracket_depth", "f(a[0], ')')\n", "0112211111100"),
        ("in_brackets", "f(a[0], ')')\n", "0111111111100"),
        ("bracket_depth", "# (\nf({})\n", "0000" + "012100"),
        ("indentation", "if x:\n    y\n\nz\n", "000000" + "123440" + "0" + "00"),
        ("line_position", "ab\n\ncd\n", "120" + "0" + "120"),
        ("in_definition", "def f(a: b):\n x\n", "00" + "1" * 9 + "0" + "0000"),
        ("in_import", "import os; x\n", "00000" + "1111" + "0000"),
        ("in_condition", "if lambda: x: y\n", "01" + "1" * 10 + "0000"),
        ("in_condition", "if a[1:2]: y\n", "01" + "1" * 7 + "0000"),
        ("in_condition", "x = 1 if y else 2\n", "0" * 18),
        ("in_loop", "async for x in y: z\n", "0" * 8 + "1" * 8 + "0000"),
        ("in_return", "return (1,\n 2)\nx\n", "000001111111110" + "00"),
    ],
)
def test_hand_made_source(name, text, expected):
    assert marks(text, name) == expected


def test_every_label_has_a_value_at_every_boundary_and_starts_at_nothing():
    text = "def f(x):\n    return 'é(' + x  # (\n"
    found = source_labels(text)
    assert list(found) == list(LABELS)
    assert all(
        len(values) == len(text) + 1 and values[0] == 0 and np.isfinite(values).all() for values in found.values()
    )


def test_no_label_looks_ahead():
    head = "x = [1, 'a']\ndef f(a):\n    return a\n"
    one, other = source_labels(head + "y = 2\n"), source_labels(head + "    # more\n")
    for name in LABELS:
        np.testing.assert_array_equal(one[name][: len(head) + 1], other[name][: len(head) + 1], err_msg=name)


@pytest.mark.parametrize(("text", "said"), [("x = (\n", "cannot read"), ("x\r\n", "carriage returns")])
def test_what_cannot_be_labelled_is_said(text, said):
    with pytest.raises(ValueError, match=said):
        source_labels(text)
