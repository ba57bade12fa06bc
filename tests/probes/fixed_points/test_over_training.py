"""Oracle: `fixed_points` of each checkpoint, and tanh(g h), which has one fixed point up to g = 1 and three beyond."""

import numpy as np
import pytest
import torch

from strobe.probes.fixed_points import fixed_points, fixed_points_over_training, from_function

GAINS = {0: 0.5, 10: 1.5, 20: 2.0, 30: 3.0}


class Stopped(Exception):
    """As a cancelled job raises it."""


def checkpoints():
    return [(step, from_function(lambda x, g=g: torch.tanh(g * x), 1)) for step, g in GAINS.items()]


def test_each_checkpoint_has_its_own_points():
    given = []
    result = fixed_points_over_training(checkpoints(), n_initial=32, rounds=1, partial=given.append)
    assert [len(one.points) for one in result.found] == [1, 3, 3, 3]
    for (_, system), one in zip(checkpoints(), result.found, strict=True):
        alone = fixed_points(system, n_initial=32, rounds=1, control=None)
        np.testing.assert_array_equal(one.points, alone.points)
    assert not result.partial and "cut short" not in result.summary()
    # What was given on the way is not changed by what came after.
    assert [one.steps.tolist() for one in given] == [[0], [0, 10], [0, 10, 20]]
    assert [len(one.found) for one in given] == [1, 2, 3]


def test_a_search_cut_short_has_the_checkpoints_reached(tmp_path):
    given = []

    def progress(done, total, what):
        if done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        fixed_points_over_training(checkpoints(), n_initial=32, rounds=1, progress=progress, partial=given.append)
    found = given[-1]
    fresh = fixed_points_over_training(checkpoints()[:2], n_initial=32, rounds=1)
    assert found.steps.tolist() == fresh.steps.tolist() == [0, 10]
    for one, other in zip(found.found, fresh.found, strict=True):
        np.testing.assert_array_equal(one.points, other.points)
    said = "cut short after 2 of 4 checkpoints"
    opened = type(found).load(found.save(tmp_path / "cut.safetensors"))
    for cut in (found, opened):
        assert cut.partial == said and said in cut.summary()
        for figure in (cut.figure(), cut.counts_figure(), given[0].figure()):
            assert "cut short after" in figure.layout.title.subtitle.text
    assert "cut short" not in fresh.figure().layout.title.subtitle.text
