"""Oracle: errors put in by hand, whose relative size is known exactly."""

import numpy as np
import pytest
import torch

from strobe.core.tolerances import TOLERANCES, assert_close, relative_error, tolerance


def test_a_known_error_is_measured_as_it_is():
    expected = np.array([3.0, -4.0, 0.0, 0.0])  # RMS 2.5
    actual = expected + np.array([0.0, 0.0, 0.01, -0.02])
    assert relative_error(actual, expected) == pytest.approx(np.sqrt(5e-4 / 4) / 2.5, rel=1e-12)
    assert relative_error(actual, expected, "max") == pytest.approx(0.02 / 2.5, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_scale_does_not_matter(scale: float):
    expected = np.array([1.0, 2.0, 2.0])
    assert relative_error(1.001 * scale * expected, scale * expected) == pytest.approx(1e-3, rel=1e-6)


def test_a_difference_below_float32_is_seen_in_float64():
    expected = torch.ones(10, dtype=torch.float64)
    assert relative_error(expected + 1e-12, expected) == pytest.approx(1e-12, rel=1e-3)


def test_torch_numpy_and_complex_numbers():
    expected = torch.tensor([1 + 1j, 2.0], requires_grad=True)
    assert relative_error(expected.conj(), np.array([1 - 1j, 2])) == 0
    assert relative_error(torch.ones(3, dtype=torch.bfloat16), np.ones(3, np.float32)) == 0


@pytest.mark.parametrize("norm", ["rms", "max"])
def test_what_is_not_a_number_is_never_close(norm):
    for bad in ([np.nan, 1.0], [np.inf, 1.0]):
        assert not relative_error(np.array(bad), np.array([1.0, 1.0]), norm) <= 1e300
    assert not relative_error(np.array([np.nan]), np.array([np.nan]), norm) <= 1e300
    assert relative_error(np.array([np.inf, 1.0]), np.array([np.inf, 1.0]), norm) == 0


def test_an_error_against_zero_is_infinite():
    assert relative_error(np.zeros(3), np.zeros(3)) == 0
    assert relative_error(np.full(3, 1e-300), np.zeros(3)) == float("inf")


def test_shapes_are_never_broadcast():
    for actual, expected in [((3, 1), (3,)), ((1,), (3,)), ((0,), (0,))]:
        with pytest.raises(ValueError, match="comparing shapes"):
            relative_error(np.ones(actual), np.ones(expected))


def test_close_and_not_close():
    limit = TOLERANCES["scan"]["float32"]
    expected = torch.ones(4, 5)
    assert_close(expected.double() * (1 + 0.5 * limit), expected, kind="scan", dtype=torch.float32)
    actual = expected.clone()
    actual[2, 3] = 1.5
    with pytest.raises(AssertionError, match=r"scan: relative error 0\.112.*largest at \(2, 3\)"):
        assert_close(actual, expected, kind="scan")
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(expected.double() * (1 + 2 * limit), expected, kind="scan", dtype="float32")
    with pytest.raises(AssertionError, match=r"nan.*largest at \(1, 0\)"):
        actual[1, 0] = float("nan")
        assert_close(actual, expected, kind="scan")


def test_a_tolerance_that_was_not_measured_is_not_invented():
    assert tolerance("scan", torch.float64) == tolerance("scan", np.dtype("float64")) == tolerance("scan", "float64")
    with pytest.raises(ValueError, match=r"no tolerance for 'scan' in float16.*float32"):
        tolerance("scan", torch.float16)
    with pytest.raises(ValueError, match="no tolerance for 'feelings'"):
        tolerance("feelings", "float32")
