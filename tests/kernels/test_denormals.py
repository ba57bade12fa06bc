"""Oracle: IEEE 754 (1e-39 is below float32's smallest normal number, 1.2e-38), and the reference scan."""

import pytest
import torch

from strobe.kernels.denormals import flushed

CPU = torch.device("cpu")


def product() -> float:
    return float(torch.full((1,), 1e-30) * 1e-9)


def test_what_is_too_small_is_zero_inside_and_only_there():
    assert product() > 0
    with flushed(CPU):
        assert product() == 0
        with flushed(CPU):
            assert product() == 0
        assert product() == 0
    assert product() > 0


def test_an_error_inside_ends_it():
    with pytest.raises(RuntimeError, match="on purpose"), flushed(CPU):
        raise RuntimeError("on purpose")
    assert product() > 0


def test_the_callers_own_choice_outlasts_it():
    torch.set_flush_denormal(True)
    try:
        with flushed(CPU):
            pass
        assert product() == 0
    finally:
        torch.set_flush_denormal(False)
    assert product() > 0
