"""Oracle: the group itself: products worked out by hand, and all 120 elements reached."""

import numpy as np

from strobe.models.tasks import task
from strobe.models.tasks.symmetric_group_5 import ELEMENTS


def test_swap_then_cycle_by_hand():
    # The swap sends 0 to 1, and the cycle then 1 to 2; 1 to 0 to 1; 2 to 3; 3 to 4; 4 to 0.
    answers = task("s5").solve(np.array([[0, 1]]))
    assert ELEMENTS[answers[0, 0]] == (1, 0, 2, 3, 4)
    assert ELEMENTS[answers[0, 1]] == (2, 1, 3, 4, 0)


def test_five_cycles_or_two_swaps_are_nothing_and_the_two_make_everything():
    identity = ELEMENTS.index((0, 1, 2, 3, 4))
    assert task("s5").solve(np.ones((1, 5), dtype=np.int64))[0, -1] == identity
    assert task("s5").solve(np.zeros((1, 2), dtype=np.int64))[0, -1] == identity
    targets = task("s5").generate(500, np.random.default_rng(0), time=40).targets
    assert len(np.unique(targets)) == 120


def test_delayed_match_by_hand():
    answers = task("delayed_match").solve(np.array([[1, 0, 1, 1, 0]]), window=3)
    assert answers.tolist() == [[-100, -100, 1, 0, 0]]
