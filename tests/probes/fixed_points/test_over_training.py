"""Oracle: `fixed_points` of each checkpoint, and tanh(g h), which has one fixed point up to g = 1 and three beyond."""

import numpy as np
import torch
from cutting import stopped_after

from strobe.probes.fixed_points import fixed_points, fixed_points_over_training, from_function

GAINS = {0: 0.5, 10: 1.5, 20: 2.0, 30: 3.0}


def checkpoints():
    return [(step, from_function(lambda x, g=g: torch.tanh(g * x), 1)) for step, g in GAINS.items()]


def test_each_checkpoint_has_its_own_points():
    result = fixed_points_over_training(checkpoints(), n_initial=32, rounds=1)
    assert [len(one.points) for one in result.found] == [1, 3, 3, 3]
    for (_, system), one in zip(checkpoints(), result.found, strict=True):
        alone = fixed_points(system, n_initial=32, rounds=1, control=None)
        np.testing.assert_array_equal(one.points, alone.points)
    assert not result.partial and "cut short" not in result.summary()


def test_a_search_cut_short_has_the_checkpoints_reached(tmp_path):
    def ask(**how):
        return fixed_points_over_training(checkpoints(), n_initial=32, rounds=1, **how)

    # Told before each checkpoint: two were searched when the third is.
    nothing, first, found, whole = (stopped_after(ask, n) for n in (1, 2, 3, 5))
    assert nothing is None and first.steps.tolist() == [0] and not whole.partial
    fresh = fixed_points_over_training(checkpoints()[:2], n_initial=32, rounds=1)
    assert found.steps.tolist() == fresh.steps.tolist() == [0, 10]
    for one, other in zip(found.found, fresh.found, strict=True):
        np.testing.assert_array_equal(one.points, other.points)
    said = "cut short after 2 of 4 checkpoints"
    opened = type(found).load(found.save(tmp_path / "cut.safetensors"))
    for cut in (found, opened):
        assert cut.partial == said and said in cut.summary()
        for figure in (cut.figure(), cut.counts_figure(), first.figure()):
            assert "cut short after" in figure.layout.title.subtitle.text
    assert "cut short" not in fresh.figure().layout.title.subtitle.text
