"""Oracle: the sum over every path of states, and the floor of a three-state chain, measured apart (.5214)."""

from itertools import pairwise, product

import numpy as np
import pytest

from strobe.probes.dynamics.case_studies.forward_algorithm import symbol_costs

TRANSITION = np.array([[0.95, 0.05, 0], [0.025, 0.95, 0.025], [0, 0.05, 0.95]])
EMISSION = np.array([[0.99, 0.01, 0], [0.495, 0.01, 0.495], [0, 0.01, 0.99]])


def emitted(n, time, start, rng):
    state, out = (rng.random((n, 1)) > start.cumsum()[:-1]).sum(1), np.empty((n, time), dtype=np.int64)
    for t in range(time):
        out[:, t] = (rng.random((n, 1)) > EMISSION[state].cumsum(1)[:, :-1]).sum(1)
        state = (rng.random((n, 1)) > TRANSITION[state].cumsum(1)[:, :-1]).sum(1)
    return out


def test_the_costs_of_a_sequence_add_up_to_the_sum_over_all_paths():
    start = np.array([0.5, 0.3, 0.2])
    for word in ([0, 0, 2, 1], [1, 1, 1, 1], [2, 0, 1, 2]):
        total = 0.0
        for path in product(range(3), repeat=4):
            chance = start[path[0]]
            for a, b in pairwise(path):
                chance *= TRANSITION[a, b]
            total += chance * np.prod([EMISSION[state, symbol] for state, symbol in zip(path, word, strict=True)])
        found = symbol_costs(np.array([word]), TRANSITION, EMISSION, start)
        assert found.sum() == pytest.approx(-np.log(total), rel=1e-12)


def test_the_floor_of_a_sticky_chain_of_three_states():
    stationary = np.array([0.25, 0.5, 0.25])
    np.testing.assert_allclose(stationary @ TRANSITION, stationary, atol=1e-12)
    symbols = emitted(3000, 100, stationary, np.random.default_rng(0))
    assert symbol_costs(symbols, TRANSITION, EMISSION, stationary)[:, 20:].mean() == pytest.approx(0.5214, abs=0.004)


def test_what_cannot_come_costs_infinitely_and_the_next_is_a_guess_from_the_start():
    certain = np.eye(2)
    found = symbol_costs(np.array([[0, 1, 1]]), certain, certain, np.array([1.0, 0.0]))
    assert found[0, 0] == 0
    assert np.isinf(found[0, 1:]).all()
