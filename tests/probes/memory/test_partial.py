"""Oracle: the same analysis asked of the part that was reached."""

import numpy as np
from cutting import stopped_after

from strobe.probes.memory import (
    Asked,
    NormLimit,
    Reset,
    capacity,
    compare_mitigations,
    diagnose,
    effective_remembrance,
    memory_curve,
    position_loss,
    training_norms,
)


def test_diagnostics_cut_short_are_those_of_the_tokens_read(native, tokens):
    model, x = native("mamba2"), tokens(4, 80)
    found = stopped_after(lambda **how: diagnose(model, x, train_length=8, stride=4, piece=8, **how), 5)
    fresh = diagnose(model, x[:, :40], train_length=8, stride=4, piece=8)
    assert found.time == fresh.time == 40 and found.positions.tolist() == fresh.positions.tolist()
    for name in (*found.KEPT, "mean_log_decay", "control_norm", "control_outside"):
        np.testing.assert_array_equal(getattr(found, name)[0], getattr(fresh, name)[0])
    # The last token read has a next one only in the longer input.
    np.testing.assert_array_equal(found.window_loss[:-1], fresh.window_loss[:-1])
    assert len(found.window_loss) == 10 and np.isfinite(found.window_loss).all()
    assert "cut short after 40 of 80 tokens" in found.summary() and "cut short" not in fresh.summary()
    assert found.figure("retention").data and found.loss_figure().data


def test_remembrance_cut_short_has_the_suffixes_that_were_tried(native, tokens):
    model, x = native("mamba2"), tokens(3, 20)
    found = stopped_after(lambda **how: effective_remembrance(model, x, lengths=[1, 4, 9], **how), 2)
    fresh = effective_remembrance(model, x, lengths=[1, 4])
    assert found.lengths.tolist() == [1, 4]
    np.testing.assert_array_equal(found.distance, fresh.distance)
    np.testing.assert_array_equal(found.control, fresh.control)
    assert "cut short after 2 of 3 suffixes" in found.summary() and not fresh.partial


def test_loss_by_position_cut_short_has_the_windows_that_both_readings_finished(native, tokens):
    model, x = native("mamba2"), tokens(3, 80)

    def ask(n, **how):
        return position_loss(model, x[:, :n], train_length=12, window=5, piece=20, **how)

    # Told after each fresh segment of 12: the fourth has been read, 48 tokens of both.
    found, fresh = stopped_after(lambda **how: ask(80, **how), 4), ask(80)
    for name in ("loss", "accuracy", "fresh_loss", "fresh_accuracy"):
        assert len(getattr(found, name)) == 9
        np.testing.assert_array_equal(getattr(found, name), getattr(fresh, name)[:9])
    assert np.isfinite(found.harm) and found.harm != fresh.harm
    assert "cut short after 45 of 80 tokens" in found.summary() and not fresh.partial
    assert found.figure().layout.title.subtitle.text.startswith("cut short after 45 of 80 tokens")


def test_a_memory_curve_cut_short_has_the_lags_that_were_read(native, tokens):
    model, x = native("gru"), tokens(40, 12)

    def ask(lags, **how):
        return memory_curve(model, x, 0, lags=lags, **how)

    found, fresh = stopped_after(lambda **how: ask([0, 1, 2, 5], **how), 3), ask([0, 1, 2])
    assert found.lags == (0, 1, 2)
    for name in ("r2", "noisy", "control", "accuracy"):
        np.testing.assert_array_equal(getattr(found, name), getattr(fresh, name))
    assert "cut short after 3 of 4 lags" in found.summary() and not fresh.partial


def test_capacity_cut_short_has_the_lengths_that_were_asked(native, tokens):
    model, x = native("mamba2"), tokens(6, 12).numpy()

    def make(length, depth, n, rng):
        return Asked(x[:n, :length], rng.integers(29, size=(n, 1)))

    def ask(lengths, **how):
        return capacity(model, make, lengths, task="anything", depths=[0.2, 0.6], n=4, **how)

    # The first length is two cells; the third tick is of the second length's first.
    found, fresh = stopped_after(lambda **how: ask([6, 9], **how), 3), ask([6])
    assert found.lengths == (6,)
    np.testing.assert_array_equal(found.accuracy, fresh.accuracy)
    np.testing.assert_array_equal(found.control, fresh.control)
    assert "cut short after 1 of 2 lengths" in found.summary() and not fresh.partial


def test_a_comparison_cut_short_before_its_control_gives_no_verdict(native, tokens):
    model, x = native("mamba2"), tokens(4, 48)
    limits = training_norms(model, x, train_length=8)
    chosen = [Reset(every=8), NormLimit(limits=limits, every=8)]

    def ask(**how):
        return compare_mitigations(model, x, chosen, train_length=8, piece=48, **how)

    # Untouched, reset and limited are run; the swap is not.
    found, fresh = stopped_after(ask, 4), ask()
    assert found.runs == fresh.runs[:3] and fresh.runs[3].startswith("swap")
    np.testing.assert_array_equal(found.accuracy, fresh.accuracy[:3])
    assert "cut short after 3 of 4 runs" in found.summary() and "cut short" not in fresh.summary()
    fallen = fresh.accuracy.copy()
    fallen[0], fallen[1] = [1, *[0.2] * 5], 1
    made = type(found)(**{**vars(found), "accuracy": fallen[:3]})
    assert made.verdict.startswith("no verdict: cut short before the memory was swapped")
    assert type(found)(**{**vars(fresh), "accuracy": fallen}).verdict.startswith("collapse")
