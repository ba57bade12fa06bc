"""Oracle: a fresh recurrence over the last tokens, stepped one by one; and a held past that a difference must lose."""

import pytest
import torch

from strobe.kernels.decay import DECAY
from strobe.probes.memory import SlidingWindow
from strobe.probes.memory.scan_signals import changing
from strobe.probes.memory.streaming import pieces


def reads(model, x, mitigation, piece=64):
    """What the layer's scan returned after the window was applied, and the signals it was given."""
    seen, signals = [], []
    with mitigation.open(model), changing(model, lambda layer, family, s: signals.append(s) or s):
        hook = ("blocks.0.mixer.hook_read", lambda read, hook: seen.append(read))
        list(pieces(model, x, hooks=[hook], piece=piece))
    return torch.cat(seen, 1), signals


@pytest.mark.parametrize("name", ["mamba2", "mingru", "rglru"])
@pytest.mark.parametrize("window", [1, 5, 40])
def test_a_windowed_read_is_that_of_a_fresh_recurrence(name, window, native, tokens):
    model, x = native(name), tokens(2, 23)
    found, (signals,) = reads(model, x, SlidingWindow(window=window))
    family = model.mixers["blocks.0.mixer"].family
    for t in range(23):
        carry = family.init_carry(signals)
        for s in range(max(0, t - window + 1), t + 1):
            carry, read = family.step(family.at(signals, s), carry)
        assert (found[:, t] - read).abs().max() < 1e-12 * max(1.0, read.abs().max())


@pytest.mark.parametrize("name", ["mamba2", "mingru"])
def test_pieces_of_a_stream_are_windowed_as_the_whole(name, native, tokens):
    model, x = native(name), tokens(2, 23)
    whole, _ = reads(model, x, SlidingWindow(window=6))
    cut, _ = reads(model, x, SlidingWindow(window=6), piece=4)
    assert (whole - cut).abs().max() < 1e-12


def test_decays_by_channel_are_windowed_too(native, tokens):
    model, x = native("mamba2"), tokens(1, 17)
    mixer = model.mixers["blocks.0.mixer"]
    ramp = torch.linspace(0.5, 1.5, 3, dtype=torch.float64)

    def by_channel(layer, family, s):
        return s._replace(log_decay=s.log_decay.unsqueeze(-1) * ramp)

    with changing(model, by_channel):
        found, (signals,) = reads(model, x, SlidingWindow(window=4))
    assert signals.log_decay.ndim == 4
    for t in range(17):
        carry = DECAY.init_carry(signals)
        for s in range(max(0, t - 3), t + 1):
            carry, read = mixer.family.step(DECAY.at(signals, s), carry)
        assert (found[:, t] - read).abs().max() < 1e-12 * max(1.0, read.abs().max())


def test_decays_too_strong_for_a_product_are_summed_as_logarithms(native, tokens):
    # 40 tokens of e^-30 underflow float64 as a product, and 0/0 would follow; then the decays are weak again.
    model, x = native("mamba2"), tokens(1, 63)

    def strong(layer, family, s):
        log_decay = s.log_decay.clone()
        log_decay[:, :40] = -30.0
        return s._replace(log_decay=log_decay)

    with changing(model, strong):
        found, (signals,) = reads(model, x, SlidingWindow(window=8))
    carry = DECAY.init_carry(signals)
    for s in range(55, 63):
        carry, read = DECAY.step(DECAY.at(signals, s), carry)
    assert torch.isfinite(found).all()
    assert (found[:, -1] - read).abs().max() < 1e-12 * max(1.0, read.abs().max())


@pytest.mark.parametrize("name", ["gated_deltanet", "mamba", "rwkv4", "gru"])
def test_a_memory_that_does_more_than_decay_is_refused(name, native):
    model = native(name)
    with pytest.raises(ValueError, match=r"asked for in .*family .*(reset the carry|fixed points)"):
        SlidingWindow(window=4).open(model).__enter__()
    with pytest.raises(ValueError, match="give 1 or more"):
        SlidingWindow(window=0).open(model).__enter__()
