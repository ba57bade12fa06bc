"""Oracle: the experiment itself on the bundled recall models, and verdicts of curves written by hand."""

import numpy as np
import pytest

import strobe
from strobe.models.tasks import task
from strobe.probes.memory import (
    Insertion,
    MitigationComparison,
    NormLimit,
    Reset,
    SlidingWindow,
    compare_mitigations,
    diagnose,
    training_norms,
)
from strobe.probes.provenance import provenance_of


@pytest.fixture(scope="module")
def recall():
    return task("segmented_recall").generate(8, np.random.default_rng(11), segments=16)


def compared(name, drawn):
    model = strobe.load(name)
    limits = training_norms(model, drawn.inputs, train_length=64, every=16)
    chosen = [
        Reset(every=64),
        Reset(every=64, part="windows"),
        NormLimit(limits=limits, every=64),
        Insertion(decay=0.97, write=1.0),
        SlidingWindow(window=64),
    ]
    return compare_mitigations(model, drawn.inputs, chosen, targets=drawn.targets, train_length=64)


def test_trained_on_one_segment_it_collapses_and_zeroing_the_memory_brings_it_back(recall, tmp_path):
    result = compared("recall-t64", recall)
    late = dict(zip(result.runs, result.beyond(), strict=True))
    assert result.within() > 0.99 and late["untouched"] < 0.35
    assert late["reset memory every 64"] > 0.97
    # Not the convolution, and not a memory as large and as old of another sequence.
    assert abs(late["reset windows every 64"] - late["untouched"]) < 0.1
    assert abs(late["swap memory every 64"] - late["untouched"]) < 0.1
    # The norm is part of it, and stale content the rest; forgetting faster helps more.
    assert late["untouched"] + 0.15 < late["norm limited every 64"] < 0.8
    assert late["decay x 0.97, write x 1"] > 0.8 and late["window of 64 by state difference"] > 0.7
    assert result.verdict.startswith("collapse: accuracy")
    assert "'reset memory every 64' brings back" in result.verdict
    assert MitigationComparison.load(result.save(tmp_path / "r.safetensors")) == result
    names = [t.name for t in result.figure().data]
    assert names[2] == "reset windows every 64 (control)" and names[-1] == "swap memory every 64 (control)"
    assert "collapse" in result.figure("rms").layout.title.subtitle.text
    assert len(result.to_frame()) == result.loss.size


def test_trained_on_two_segments_it_learned_to_forget(recall):
    model = strobe.load("recall-t128")
    result = compare_mitigations(
        model, recall.inputs, [Reset(every=64)], targets=recall.targets, train_length=128, window=64
    )
    assert result.accuracy[0].min() > 0.97
    assert result.verdict.startswith("no collapse: accuracy")
    kept = diagnose(model, recall.inputs, targets=recall.targets, train_length=128).retention_per(64)[0]
    collapsed = diagnose(strobe.load("recall-t64"), recall.inputs, targets=recall.targets).retention_per(64)[0]
    assert kept.max() < 0.1 < 0.8 < collapsed.min()


@pytest.fixture(scope="module")
def by_hand():
    provenance = provenance_of(strobe.load("recall-t64"), control="by hand")

    def make(untouched, reset, swap, kinds=("untouched", "Reset", "Swap")):
        accuracy = np.array([[1.0, *[a] * 4] for a in (untouched, reset, swap)])
        rms = np.ones((3, 5, 1))
        return MitigationComparison(
            kinds, kinds, (2,), 8, 8, 1 - accuracy, accuracy, rms, (0,), provenance=provenance
        )  # fmt: skip

    return make


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        ((0.95, 0.2, 0.2), "no collapse"),
        ((0.5, 0.6, 0.5), "no intervention here brings it back"),
        ((0.2, 0.9, 0.8), "the control 'Swap' brings it back too"),
        ((0.2, 0.9, 0.3), "collapse: accuracy 1.00 within training, 0.20 beyond; 'Reset' brings back 0.90"),
    ],
)
def test_collapse_takes_a_fall_an_intervention_and_a_control_that_fails(curves, said, by_hand):
    assert said in by_hand(*curves).verdict
    assert said in by_hand(*curves).summary()


def test_a_planted_run_is_no_cure(by_hand):
    assert "no intervention" in by_hand(0.2, 0.9, 0.3, kinds=("untouched", "Planted", "Swap")).verdict


def test_a_comparison_needs_something_to_compare(recall):
    with pytest.raises(ValueError, match="give one at least"):
        compare_mitigations(strobe.load("recall-t64"), recall.inputs, [])
