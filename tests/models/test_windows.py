"""Oracle: a Python loop that keeps, for each row, the list of real tokens seen so far."""

import pytest
import torch

from strobe.core.tolerances import assert_close
from strobe.models.windows import causal_conv, shifted, windows_at

BATCH, TIME, CHANNELS, KERNEL = 4, 9, 3, 4
MASK = torch.tensor([[c == "1" for c in row] for row in ("111111111", "000111111", "110101001", "111100000")])
MASKS = pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "padded"])


@pytest.fixture(autouse=True, params=[False, True], ids=["no gradients", "gradients"])
def gradients(request):
    """Without gradients a CPU takes another way to the convolution, a sum of shifted streams."""
    with torch.set_grad_enabled(request.param):
        yield


def stream_and_window():
    generator = torch.Generator().manual_seed(0)
    stream = torch.randn(BATCH, TIME, CHANNELS, generator=generator, dtype=torch.float64)
    return stream, torch.randn(BATCH, KERNEL - 1, CHANNELS, generator=generator, dtype=torch.float64)


def histories(stream, window, mask):
    """(row, token, everything the row has seen up to and with it) for each real token; `window` comes first."""
    for row in range(BATCH):
        seen = list(window[row])
        for t in range(TIME):
            if mask is None or mask[row, t]:
                seen = [*seen, stream[row, t]]
                yield row, t, seen


@MASKS
@pytest.mark.parametrize("bias", [False, True])
def test_causal_conv(mask, bias):
    stream, window = stream_and_window()
    weight = torch.randn(CHANNELS, KERNEL, dtype=torch.float64)
    offset = torch.randn(CHANNELS, dtype=torch.float64) if bias else None
    out = causal_conv(stream, window, weight, offset, mask)
    for row, t, seen in histories(stream, window, mask):
        expected = sum(weight[:, j] * seen[-KERNEL + j] for j in range(KERNEL))
        assert_close(out[row, t], expected + offset if bias else expected, kind="scan")


@MASKS
def test_shifted(mask):
    stream, window = stream_and_window()
    out = shifted(stream, window[:, -1:], mask)
    for row, t, seen in histories(stream, window, mask):
        assert torch.equal(out[row, t], seen[-2])


@MASKS
def test_windows_at(mask):
    stream, window = stream_and_window()
    positions = [0, 5, 2, 8, 8]
    out = windows_at(stream, window, positions, mask)
    assert out.shape == (BATCH, len(positions), KERNEL - 1, CHANNELS)
    after = {(row, t): torch.stack(seen[-(KERNEL - 1) :]) for row, t, seen in histories(stream, window, mask)}
    for row in range(BATCH):
        for n, position in enumerate(positions):
            earlier = [t for t in range(position + 1) if (row, t) in after]
            assert torch.equal(out[row, n], after[row, earlier[-1]] if earlier else window[row])


@MASKS
def test_the_last_window_continues_the_convolution(mask):
    stream, window = stream_and_window()
    weight = torch.randn(CHANNELS, KERNEL, dtype=torch.float64)
    whole = causal_conv(stream, window, weight, None, mask)
    for cut in range(1, TIME):
        first, second = (None, None) if mask is None else (mask[:, :cut], mask[:, cut:])
        middle = windows_at(stream[:, :cut], window, [cut - 1], first)[:, 0]
        parts = (
            causal_conv(stream[:, :cut], window, weight, None, first),
            causal_conv(stream[:, cut:], middle, weight, None, second),
        )
        real = torch.ones(BATCH, TIME, dtype=torch.bool) if mask is None else mask
        assert_close(torch.cat(parts, 1)[real], whole[real], kind="scan")


def test_a_kernel_of_one_has_an_empty_window():
    stream, window = stream_and_window()
    weight = torch.randn(CHANNELS, 1, dtype=torch.float64)
    empty = window[:, :0]
    assert_close(causal_conv(stream, empty, weight, None), stream * weight[:, 0], kind="scan")
    assert windows_at(stream, empty, [3, 4]).shape == (BATCH, 2, 0, CHANNELS)
