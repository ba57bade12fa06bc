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


LINEAR = ["mamba2", "mingru", "rglru", "mamba", "gated_deltanet", "rwkv4"]


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("window", [1, 2, 5, 7, 40])
def test_a_windowed_read_is_that_of_a_fresh_recurrence(name, window, native, tokens):
    model, x = native(name), tokens(2, 23)
    found, (signals,) = reads(model, x, SlidingWindow(window=window))
    family = model.mixers["blocks.0.mixer"].family
    for t in range(23):
        carry = family.init_carry(signals)
        for s in range(max(0, t - window + 1), t + 1):
            carry, read = family.step(family.at(signals, s), carry)
        assert (found[:, t] - read).abs().max() < 1e-12 * max(1.0, read.abs().max())


@pytest.mark.parametrize("name", LINEAR)
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


@pytest.mark.parametrize("kind", ["negative", "complex", "general delta"])
def test_decays_of_any_sign_or_phase_and_any_erasing(kind):
    from strobe.kernels import delta, diagonal
    from strobe.kernels.diagonal.reference import random_signals as diagonal_signals
    from strobe.probes.memory.late_writes import GONE

    if kind == "general delta":
        family, joined = delta.DELTA, delta.random_signals(2, 23 + 5, dtype=torch.float64, per_channel=True)
    else:
        family = diagonal.DIAGONAL
        joined = diagonal_signals(2, 23 + 5, dtype=torch.complex128 if kind == "complex" else torch.float64)
        sign = 1 - 2 * torch.randint(2, (2, 28, 5), generator=torch.Generator().manual_seed(0)).double()
        joined = joined._replace(a=joined.a * sign)
    gone, _ = GONE[family.name](joined, 5, None)
    for t in range(5, 28):
        # What entered before the window, stepped on with every later write left out.
        carry, read = family.init_carry(joined), torch.empty(0)
        for s in range(t + 1):
            here = family.at(joined, s)
            if s > t - 5:
                field = "b" if family.name == "diagonal" else "v"
                here = here._replace(**{field: torch.zeros_like(getattr(here, field))})
            carry, read = family.step(here, carry)
        assert (gone[:, t - 5] - read).abs().max() < 1e-12 * max(1.0, float(read.abs().max()))


def test_a_large_old_key_leaves_the_window_without_a_trace(native, tokens):
    # Under one maximum, or as a difference of sums, e^120 in float32 would leave nothing of what follows.
    model, x = native("rwkv4", dtype=torch.float32), tokens(1, 19)

    def loud(layer, family, s):
        k = s.k.clone()
        k[:, 3] += 120
        return s._replace(k=k)

    with changing(model, loud):
        found, (signals,) = reads(model, x, SlidingWindow(window=6))
    family = model.mixers["blocks.0.mixer"].family
    signals = type(signals)(*(None if f is None else f.double() for f in signals))
    carry = family.init_carry(signals)
    for s in range(13, 19):
        carry, read = family.step(family.at(signals, s), carry)
    assert (found[:, -1] - read).abs().max() < 1e-5 * max(1.0, read.abs().max())


@pytest.mark.parametrize("name", ["gru", "lstm", "elman"])
def test_a_memory_that_is_nonlinear_is_refused(name, native):
    model = native(name)
    with pytest.raises(ValueError, match=r"asked for in .*family .*fixed points"):
        SlidingWindow(window=4).open(model).__enter__()
    with pytest.raises(ValueError, match="give 1 or more"):
        SlidingWindow(window=0).open(model).__enter__()
