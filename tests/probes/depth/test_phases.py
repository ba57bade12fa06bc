"""Oracle: every division there is, tried one by one, with scatter computed from the vectors themselves."""

from itertools import combinations

import numpy as np
import pytest

from strobe.probes.depth.phases import phases, shuffled_shares


def by_hand(vectors, k):
    n = len(vectors)
    best = {}
    for inner in combinations(range(1, n), k - 1):
        parts = np.split(vectors, inner)
        best[(0, *inner)] = sum(((part - part.mean(0)) ** 2).sum() for part in parts)
    return min(best.items(), key=lambda item: item[1])


@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
def test_the_division_is_the_best_of_all(k):
    vectors = np.random.default_rng(k).normal(size=(7, 3)).cumsum(0)
    starts, cost = by_hand(vectors, k)
    found = phases(vectors @ vectors.T, k)
    assert found.starts == starts
    assert found.cost == pytest.approx(cost, abs=1e-9)
    assert found.share == pytest.approx(1 - cost / by_hand(vectors, 1)[1], abs=1e-9)


def test_kinds_are_never_mixed_and_assignments_count_segments():
    similarity = np.ones((6, 6))
    kinds = (0, 0, 1, 1, 0, 0)
    found = phases(similarity, 3, kinds)
    assert found.starts == (0, 2, 4) and found.assignment(6) == (0, 0, 1, 1, 2, 2)
    assert np.isnan(found.share)
    with pytest.raises(ValueError, match="2 phases of 6 blocks were asked for; there can be 3 to 6, as neighbouring"):
        phases(similarity, 2, kinds)
    with pytest.raises(ValueError, match="there can be 1 to 6"):
        phases(similarity, 7)
    similarity[0, 1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        phases(similarity, 2)


def test_random_orders_explain_less_where_blocks_are_contiguous_and_as_much_where_not():
    contiguous = np.kron(np.eye(3), np.ones((4, 4)))
    chance = shuffled_shares(contiguous, 3, n_orders=100)
    assert phases(contiguous, 3).share == 1.0 and chance[-5] < 0.8
    assert (np.diff(chance) >= 0).all() and len(chance) == 100
    vectors = np.random.default_rng(0).normal(size=(12, 30))
    noise = vectors @ vectors.T
    assert shuffled_shares(noise, 3)[5] < phases(noise, 3).share < shuffled_shares(noise, 3)[-5]
