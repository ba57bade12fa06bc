"""Oracle: simulated colour blindness (Machado et al. 2009), CIE76 distance, WCAG contrast; Plotly's own checks."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from strobe.core import figures
from strobe.core.figures import COLORS_DARK, COLORS_LIGHT, DIVERGING, diverging, missing_cells, style, token_axis

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def linear(color: str) -> np.ndarray:
    c = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(rgb, 0, 1)
    t = xyz / np.array([0.95047, 1.0, 1.08883])
    f = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(a: str, b: str) -> float:
    low, high = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(c)) for c in (a, b))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("palette", [COLORS_LIGHT, COLORS_DARK], ids=["light", "dark"])
def test_the_first_five_colours_are_told_apart(palette: tuple, blindness: str):
    seen = [lab(np.asarray(BLINDNESS[blindness]) @ linear(color)) for color in palette[:5]]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 13


def test_lines_stand_out_from_the_page():
    figures.register_templates()
    import plotly.io as pio

    for name, count in (("strobe_light", 3), ("strobe_dark", 6)):
        layout = pio.templates[name].layout
        assert all(contrast(color, layout.paper_bgcolor) >= 3 for color in layout.colorway[:count]), name
        assert contrast(layout.font.color, layout.paper_bgcolor) >= 7


def test_the_diverging_scale_is_white_at_zero_and_even_on_both_sides():
    positions = [position for position, _ in DIVERGING]
    assert positions == [1 - p for p in reversed(positions)]
    assert DIVERGING[len(DIVERGING) // 2] == (0.5, "#FFFFFF")
    lightness = [lab(linear(color))[0] for _, color in DIVERGING]
    assert np.abs(np.array(lightness) - lightness[::-1]).max() < 1
    assert lightness == sorted(lightness[:3]) + sorted(lightness[3:], reverse=True)


@pytest.mark.parametrize("template", ["strobe_light", "strobe_dark"])
def test_a_figure_has_the_template_whatever_the_default_is(template: str):
    import plotly.io as pio

    before = pio.templates.default
    pio.templates.default = "plotly_dark"
    try:
        fig = style(go.Figure(go.Scatter(y=[1, 2])), template)
    finally:
        pio.templates.default = before
    drawn = json.loads(fig.to_json())["layout"]["template"]["layout"]
    assert drawn["colorway"] == list(figures.colors(template))
    assert "'Source Sans 3'" in drawn["font"]["family"]


def test_another_template_is_refused():
    with pytest.raises(ValueError, match="'plotly' is not one of ours"):
        style(go.Figure(), "plotly")


def test_the_templates_are_registered_only_when_used():
    code = (
        "import plotly.io as pio, strobe.core.figures as figures\n"
        "assert 'strobe_light' not in pio.templates\n"
        "figures.register_templates()\n"
        "assert 'strobe_light' in pio.templates and 'strobe_dark' in pio.templates"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2], check=True)


def test_equal_tokens_keep_their_own_columns():
    fig = token_axis(go.Figure(go.Heatmap(z=[[1, 2, 3]], x=[0, 1, 2])), ["the", " cat", "the"])
    assert fig.layout.xaxis.tickvals == (0, 1, 2)
    assert fig.layout.xaxis.ticktext == ("the", "·cat", "the")
    assert fig.layout.xaxis.range == (-0.5, 2.5)


def test_a_window_of_tokens_keeps_its_positions_and_is_escaped():
    fig = token_axis(go.Figure(go.Scatter(x=[1], y=[1])), ["<b>x</b>", "$a$"], "y", first=64)
    assert fig.layout.yaxis.tickvals == (64, 65)
    assert fig.layout.yaxis.ticktext == ("&lt;b&gt;x&lt;/b&gt;", "&#36;a&#36;")
    assert fig.layout.xaxis.ticktext is None


def test_diverging_limits_are_even_and_ignore_what_is_not_finite():
    options = diverging([[1.0, -3.0, np.nan, np.inf]])
    assert (options["zmin"], options["zmid"], options["zmax"]) == (-3, 0, 3)
    assert diverging([1.0, -3.0], limit=2)["zmax"] == 2
    for nothing in ([0.0], [np.nan], []):
        assert (diverging(nothing)["zmin"], diverging(nothing)["zmax"]) == (-1, 1)
    go.Heatmap(z=[[1]], **options)


def test_missing_cells_are_marked_where_they_are():
    z = np.array([[0.0, np.nan, 1.0], [np.inf, 2.0, -np.inf]])
    fig = missing_cells(go.Figure(go.Heatmap(z=z)), z)
    marks = fig.data[1]
    assert list(zip(marks.x, marks.y, marks.text, strict=True)) == [(1, 0, "NaN"), (0, 1, "∞"), (2, 1, "−∞")]
    moved = missing_cells(go.Figure(), z, x=[10, 20, 30], y=[5, 6]).data[0]
    assert list(zip(moved.x, moved.y, strict=True)) == [(20, 5), (10, 6), (30, 6)]
    assert len(missing_cells(go.Figure(), np.ones((2, 2))).data) == 0
