"""Oracle: the recurrence stepped by hand with the change in it, a fresh model after a reset, growth in closed form."""

import numpy as np
import pytest
import torch

from strobe.probes.memory import Insertion, NormLimit, Planted, Reset, Swap, training_norms
from strobe.probes.memory.scan_signals import changing
from strobe.probes.memory.streaming import pieces

RECURRENT = ["mamba2", "mamba", "gated_deltanet", "mingru", "rglru", "rwkv4", "gru", "lstm", "elman"]
LINEAR = ["mamba2", "gated_deltanet", "mingru", "rglru"]


def run(model, x, mitigation=None, piece=64, every=None):
    """(logits, memories of layer 0) of `x` with `mitigation`."""
    logits, memories = [], []
    hooks, looks = ([], None) if mitigation is None else (mitigation.hooks(model), mitigation.looks)
    with (mitigation or Reset(every=1)).open(model):
        for part in pieces(model, x, every=every, layers=[0], hooks=hooks, looks=looks, piece=piece):
            logits.append(part.logits)
            memories += [part.memories[0]] if every else []
    return torch.cat(logits, 1), torch.cat(memories, 1) if memories else None


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("piece", [64, 6])
def test_after_a_reset_of_everything_the_model_reads_afresh(name, piece, native, tokens):
    model, x = native(name), tokens(2, 19)
    found, _ = run(model, x, Reset(every=8, part="all"), piece=piece)
    with torch.no_grad():
        expected = torch.cat([model(x[:, :8]), model(x[:, 8:16]), model(x[:, 16:])], 1)
        plain = model(x)
    assert (found - expected).abs().max() < 1e-12
    assert (found - plain)[:, 8:].abs().max() > 1e-6


def test_what_is_captured_elsewhere_is_not_reset(native, tokens):
    model, x = native("mamba2"), tokens(2, 24)
    plain, _ = run(model, x, Reset(every=8))
    seen, memories = run(model, x, Reset(every=8), every=3, piece=12)
    assert (seen - plain).abs().max() < 1e-12
    assert [bool(memories[:, i].any()) for i in range(8)] == [(3 * i + 3) % 8 != 0 for i in range(8)]


def test_parts_are_reset_apart(native, tokens):
    model, x = native("mamba2"), tokens(2, 16)
    shown = {}
    for part in ("memory", "windows"):
        reset = Reset(every=8, part=part)
        _, carries = model.run_with_cache(
            x,
            names_filter=["blocks.0.mixer.hook_state_S", "blocks.0.mixer.hook_state_conv"],
            states=[7],
            fwd_hooks=reset.hooks(model),
        )
        shown[part] = [float(carries[f"blocks.0.mixer.hook_state_{f}"].abs().max()) for f in ("S", "conv")]
    assert shown["memory"][0] == 0 and shown["memory"][1] > 0
    assert shown["windows"][0] > 0 and shown["windows"][1] == 0


def test_a_swap_gives_each_row_the_memory_of_the_next_and_needs_two(native, tokens):
    model, x = native("gru"), tokens(3, 8)
    _, plain = run(model, x, every=8)
    _, swapped = run(model, x, Swap(every=8), every=8)
    assert torch.equal(swapped, plain.roll(1, 0))
    with pytest.raises(ValueError, match="there is one row; give two"):
        run(model, x[:1], Swap(every=8))


@pytest.mark.parametrize("name", RECURRENT)
def test_a_norm_above_the_limit_is_divided_down_to_it_and_one_below_left(name, native, tokens):
    model, x = native(name, dtype=torch.float32), tokens(2, 12)
    _, plain = run(model, x, every=12)
    norms = plain[:, 0].flatten(2).norm(dim=-1) if plain.ndim == 5 else plain[:, 0].flatten(1).norm(dim=-1)[:, None]
    for factor in (0.25, 4.0):
        limit = NormLimit(limits={0: factor * norms.amin(0).numpy()}, every=12)
        _, limited = run(model, x, limit, every=12)
        after = (
            limited[:, 0].flatten(2).norm(dim=-1) if plain.ndim == 5 else limited[:, 0].flatten(1).norm(dim=-1)[:, None]
        )
        bound = (factor * norms.amin(0)).expand_as(norms)
        torch.testing.assert_close(after, torch.minimum(norms, bound), rtol=1e-5, atol=1e-7)
        # Only the size is changed: the direction is that of before.
        cosine = torch.cosine_similarity(limited.flatten(1), plain.flatten(1)) if plain.ndim < 5 else torch.ones(1)
        assert (cosine - 1).abs().max() < 1e-5


def test_training_norms_are_the_largest_along_the_training_length(native, tokens):
    model, x = native("mamba2"), tokens(3, 20)
    _, memories = run(model, x, every=1)
    expected = memories[:, :16].flatten(3).norm(dim=-1).amax((0, 1))
    np.testing.assert_allclose(training_norms(model, x)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("name", LINEAR)
def test_scaled_decay_and_write_are_those_of_the_recurrence_stepped_by_hand(name, native, tokens):
    model, x, decay, write = native(name), tokens(2, 9), 0.7, 0.4
    kept = []
    with changing(model, lambda layer, family, s: kept.append(s) or s):
        run(model, x)
    _, memories = run(model, x, Insertion(decay=decay, write=write), every=9)
    family = model.mixers["blocks.0.mixer"].family
    memory = family.init_carry(kept[0])[0]
    transition = family.transition(kept[0])
    for t in range(9):
        at = type(transition)(*(None if v is None else v[:, t] for v in transition))
        erased = None if at.left is None else at.left * write
        memory = decay * at._replace(left=None, right=None).apply(memory)
        if erased is not None:
            memory = memory + erased @ (at.right.mT @ memory)
        memory = memory + write * at.write()
    assert (memories[:, 0] - memory).abs().max() < 1e-12


def test_what_a_family_cannot_say_is_refused(native, tokens):
    x = tokens(1, 4)
    for name, change, reason in (
        ("mamba", Insertion(decay=0.9), "only the write can be scaled"),
        ("rwkv4", Insertion(write=0.5), "changes nothing"),
        ("gru", Insertion(), "nonlinear in its carry"),
        ("lstm", Planted(), "nonlinear in its carry"),
    ):
        with pytest.raises(ValueError, match=reason):
            run(native(name), x, change)
    with pytest.raises(ValueError, match="with a recurrent carry: none"):
        run(native("attention"), x, Reset(every=2))
    with pytest.raises(ValueError, match="measure them with training_norms"):
        run(native("gru"), x, NormLimit(every=2))
    with pytest.raises(ValueError, match="give 1 or more"):
        Reset(every=0)


@pytest.mark.parametrize("name", ["mamba", "rwkv4"])
def test_the_other_half_is_possible(name, native, tokens):
    model, x = native(name), tokens(1, 9)
    change = Insertion(decay=1.0, write=0.5) if name == "mamba" else Insertion(decay=0.5, write=1.0)
    _, plain = run(model, x, every=9)
    logits, changed = run(model, x, change, every=9)
    if name == "mamba":
        # The carry is linear in what is written.
        assert (changed - 0.5 * plain).abs().max() < 1e-12
    assert torch.isfinite(logits).all() and (changed - plain).abs().max() > 1e-6


@pytest.mark.parametrize("name", ["mamba2", "mamba", "gated_deltanet", "mingru", "rglru"])
def test_the_planted_head_grows_by_as_much_every_token(name, native, tokens):
    model, x = native(name), tokens(1, 4000)
    heads = (1,)
    _, memories = run(model, x, Planted(heads=heads, mean=2.0), every=1000, piece=1000)
    memory = memories[0, :, 1].unsqueeze(-1).flatten(1).norm(dim=-1)
    steps = memory.diff()
    assert (steps / steps.mean() - 1).abs().max() < 0.1, memory
    other = memories[0, :, 0].unsqueeze(-1).flatten(1).norm(dim=-1)
    assert memory[-1] > 3.5 * memory[0] and other.max() < 0.05 * memory[-1]
    # And taken off again, the model is what it was.
    assert torch.equal(run(model, x[:, :50])[0], run(native(name), x[:, :50])[0])
    assert not [m for m in model.mixers.values() if "inputs" in vars(m)]


def test_a_window_brings_the_planted_head_back(native, tokens):
    from contextlib import ExitStack

    from strobe.probes.memory import SlidingWindow

    model, x = native("mamba2"), tokens(1, 1200)
    size = {}
    for name, changes in (
        ("planted", [Planted(heads=(1,), mean=2.0)]),
        ("windowed", [Planted(heads=(1,), mean=2.0), SlidingWindow(window=16)]),
    ):
        seen = []
        with ExitStack() as stack:
            for change in changes:
                stack.enter_context(change.open(model))
            list(pieces(model, x, hooks=[("blocks.0.mixer.hook_read", lambda r, hook, s=seen: s.append(r))], piece=300))
        read = torch.cat(seen, 1)[0, :, 1].norm(dim=-1)
        size[name] = float(read[-100:].mean() / read[20:120].mean())
    assert size["planted"] > 5
    assert size["windowed"] < 1.5
