"""Oracle: lengths planted in a family's numbers, a run that was never stopped, and numpy's own least squares."""

import json

import numpy as np
import pytest

from strobe.core.provenance import Provenance
from strobe.probes.memory import FamilySettings, MemoryFamily, fit_law, train_family
from strobe.probes.memory.laws import _r2

TINY = FamilySettings(
    states=(3, 5), windows=(6, 9), seeds=(0,), steps=3, tokens=18, segment=6, pairs=2, keys=3, values=4
)


def planted(far, *, inside=None, reset=None, recalled=None, sizes=(8, 16, 32)):
    """A family whose models reach `far` [sizes, windows, seeds] on the last octave."""
    far = np.array(far, dtype=float)
    n, w, s = far.shape
    octaves = np.stack([np.ones_like(far), far], -1)
    return MemoryFamily(
        sizes=np.array(sizes[:n]),
        windows=np.array((16, 24, 32, 64)[:w]),
        seeds=tuple(range(s)),
        segment=16,
        longest=34,
        inside=np.ones_like(far) if inside is None else np.array(inside, dtype=float),
        octaves=octaves,
        untouched=far,
        reset=np.ones_like(far) if reset is None else np.array(reset, dtype=float),
        retention=np.full((n, w, s, 2), 0.5),
        recalled=np.full((n, w, s), 10.0) if recalled is None else np.array(recalled, dtype=float),
        untrained_octaves=np.full((n, 2), 0.06),
        untrained_retention=np.full((n, 2), 0.1),
        untrained_recalled=np.zeros(n),
        seconds=1.0,
        provenance=Provenance(model="planted"),
    )


def test_where_a_family_begins_to_forget_is_found_where_it_was_planted():
    family = planted([[[0.2], [0.3], [1.0], [1.0]], [[0.2], [1.0], [0.5], [0.96]], [[0.2], [0.3], [0.4], [0.5]]])
    # Of the second, 24 held and 32 did not: it forgets from 64 on. The third never does.
    np.testing.assert_array_equal(family.forget_lengths[:, 0], [32, 64, np.nan])
    # .94 of what it reaches in training does not hold, .95 does.
    inside = np.full((1, 2, 1), 0.92)
    just = planted([[[0.94 * 0.92], [0.951 * 0.92]]], inside=inside)
    assert just.holds.ravel().tolist() == [False, True]
    # What was not learned has no far accuracy to hold, and takes the size's length with it.
    unlearned = planted([[[0.5], [1.0]]], inside=[[[0.5], [1.0]]])
    assert not unlearned.holds[0, 0, 0] and np.isnan(unlearned.forget_lengths).all()


def test_collapse_takes_an_intervention_that_repairs():
    family = planted([[[0.2], [0.2], [1.0]]], reset=[[[0.97], [0.5], [1.0]]])
    assert family.collapsed.ravel().tolist() == [True, False, False]
    said = [row[-1] for row in family.tables()[0]["rows"]]
    assert said == ["collapses", "falls, and a reset does not repair it", "holds", ""]


def test_recall_is_the_longest_of_what_was_learned():
    family = planted(np.ones((1, 3, 1)), inside=[[[1.0], [0.4], [1.0]]], recalled=[[[10], [34], [18]]])
    assert family.recall_lengths.tolist() == [[18.0]]
    assert np.isnan(planted(np.ones((1, 1, 1)), recalled=[[[0]]]).recall_lengths).all()
    # Recalled from every prompt there was: the length is that or more, and is said so.
    full = planted(np.ones((4, 1, 1)), recalled=[[[8]], [[10]], [[18]], [[34]]], sizes=(8, 16, 32, 64))
    assert full.tables()[1]["rows"][3] == [64, "16", "34 or more"] and full.tables()[1]["rows"][2][2] == "18"
    assert "1 of the lengths only reached the longest prompt, 34 tokens" in full.said("recall")


def test_lengths_that_do_not_change_are_no_law():
    # scikit-learn calls a constant that is hit an R^2 of 1.
    assert _r2(np.full(4, 32.0), np.full(4, 32.0)) == 0
    flat = fit_law("linear", [1, 2, 3, 4, 1, 2, 3, 4], [32] * 8)
    assert flat.r2 == 0 and flat.chance == 1 and flat.coefficients == (0, 32)
    assert not flat.intervals[0].any() and fit_law("exponential", [1, 2, 3, 4], [32] * 4).coefficients == (0, 1, 32)
    assert flat.verdict.startswith("growth with size is NOT shown")
    family = planted(np.repeat([[[0.2], [0.3], [1.0], [1.0]]], 3, 0))
    assert (
        "growth with size is NOT shown" in family.said("forget") and "growth with size is NOT shown" in family.summary()
    )
    one = planted([[[1.0]]])
    assert "no law could be fitted" in one.said("forget") and one.figure("forget").data


def test_a_law_that_is_there_is_said_with_its_interval():
    rng = np.random.default_rng(0)
    n = np.repeat([1, 2, 4, 8, 12], 4)
    t = 5 * n + 3 + rng.normal(size=len(n))
    found = fit_law("linear", n.tolist(), t.tolist())
    # By the textbook's standard error of a slope.
    error = np.sqrt(((t - found.predict(n)) ** 2).sum() / (len(n) - 2) / ((n - n.mean()) ** 2).sum())
    low, high = found.intervals[0]
    assert low < 5 < high and (high - low) / 2 == pytest.approx(1.96 * error, rel=0.4)
    assert found.verdict.startswith("grows with size") and found.chance < 0.02
    noise = fit_law("linear", n.tolist(), rng.normal(size=len(n)).tolist())
    assert noise.verdict.startswith("growth with size is NOT shown")
    falling = fit_law("linear", n.tolist(), (-t).tolist())
    assert falling.verdict.startswith("growth with size is NOT shown") and falling.chance < 0.02
    line = 5 * n + 3 + np.random.default_rng(1).normal(size=len(n))
    straight = fit_law("exponential", n.tolist(), line.tolist())
    assert straight.verdict.startswith("grows with size; exponentially is NOT shown")
    grown = fit_law(
        "exponential", n.tolist(), (4.756 * (1.365**n - 1) - 0.742 + 0.1 * rng.normal(size=len(n))).tolist()
    )
    assert grown.intervals[1][0] < 1.365 < grown.intervals[1][1] and grown.verdict.startswith("grows with size, exp")


def test_a_stopped_family_goes_on_to_the_same_numbers(tmp_path):
    whole = train_family(tmp_path / "whole", TINY)
    calls = 0

    def stop(done, total, message):
        nonlocal calls
        calls += 1
        assert total == 4 * 3 and done == calls
        if calls == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_family(tmp_path / "stopped", TINY, progress=stop)
    kept = sorted(p.parent.name for p in (tmp_path / "stopped").glob("*/measured.json"))
    assert kept == ["state-3-window-6-seed-0"]
    marked = tmp_path / "stopped" / kept[0] / "measured.json"
    before = marked.stat().st_mtime_ns
    again = train_family(tmp_path / "stopped", TINY)
    assert marked.stat().st_mtime_ns == before
    for name in ("inside", "octaves", "untouched", "reset", "retention", "recalled"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    assert whole.sizes.tolist() == [3 * 64, 5 * 64] and whole.longest == 8 and whole.windows.tolist() == [6, 9]
    # Another training in the same folder is refused, a wider family is not.
    with pytest.raises(ValueError, match="give another folder"):
        train_family(tmp_path / "whole", FamilySettings(**{**vars(TINY), "steps": 4}))
    assert json.loads(marked.read_text())["settings"]["steps"] == 3


def test_what_a_family_cannot_be_is_said():
    with pytest.raises(ValueError, match="windows of 16 tokens or more"):
        FamilySettings(windows=(15, 32))
    with pytest.raises(ValueError, match="one of each at least"):
        FamilySettings(seeds=())
    with pytest.raises(ValueError, match="give each once, rising"):
        FamilySettings(windows=(32, 16))
    with pytest.raises(ValueError, match="windows of up to 2000; give as many"):
        FamilySettings(windows=(16, 2000))


def test_figures_say_what_is_the_papers_and_what_is_ours(tmp_path):
    far = np.array([[0.2, 0.3, 1.0]] * 4)[..., None]
    family = planted(far, sizes=(8, 16, 32, 64), recalled=np.array([4, 6, 10, 18])[:, None, None] + 0 * far)
    assert MemoryFamily.load(family.save(tmp_path / "f.safetensors")) == family
    ours = {(8, 32.0), (16, 32.0), (32, 32.0), (64, 32.0)}
    drawn = {t.name: t for t in family.figure("forget").data}
    assert set(zip(drawn["seed 0"].x.tolist(), drawn["seed 0"].y.tolist(), strict=True)) == ours
    paper = drawn["published fit (the paper's)"]
    # Mamba-2 370M: 60.6 thousand tokens by the paper's formula, at 12.58 million numbers, on an axis of its own.
    assert paper.y[-1] == pytest.approx(60.6, abs=0.05) and paper.xaxis == "x2" and drawn["seed 0"].xaxis == "x"
    recall = {t.name: t for t in family.figure("recall").data}
    assert recall["seed 0"].y.tolist() == [4, 6, 10, 18]
    assert recall["fit to them"].y[-1] == pytest.approx(family.law("recall").predict(64))
    lines = family.figure("behaviour").data
    assert [t.name for t in lines if t.showlegend] == ["trained on 16", "trained on 24", "trained on 32",
                                                       "untrained (control)"]  # fmt: skip
    assert lines[0].y.tolist() == [1.0, 0.2] and lines[0].x.tolist() == [16, 32]
    assert len(family.to_frame()) == 12
