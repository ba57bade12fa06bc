"""Oracle: Python's own indexing of a list of that length."""

import inspect

import pytest

from strobe.kernels import resolve_positions


@pytest.mark.parametrize(
    "asked",
    [[0], [9], [-1], [-10], [3, -1, 0, 3], (5, 4), range(2, 9, 3), []],
    ids=str,
)
def test_ints_mean_what_they_mean_in_a_list_in_the_order_asked_for(asked):
    assert resolve_positions(asked, 10) == [list(range(10))[p] for p in asked]


@pytest.mark.parametrize(
    "asked",
    [slice(None), slice(2, 5), slice(-3, None), slice(None, None, 4), slice(8, 2, -2), slice(5, 99), slice(7, 3)],
    ids=str,
)
def test_a_slice_means_what_it_means_in_a_list(asked):
    assert resolve_positions(asked, 10) == list(range(10))[asked]


def test_all_and_none():
    assert resolve_positions("all", 4) == [0, 1, 2, 3]
    assert resolve_positions(None, 4) == []


@pytest.mark.parametrize("outside", [10, -11, 99])
def test_a_position_outside_names_itself_and_the_length(outside):
    with pytest.raises(IndexError, match=rf"position {outside} .* 10 tokens \(0 to 9\)"):
        resolve_positions([0, outside], 10)


def test_another_word_says_what_to_give():
    # Unwrapped, because the shape checker that runs in tests would speak first.
    with pytest.raises(ValueError, match=r"'last': give a list of ints, a slice, or 'all'"):
        inspect.unwrap(resolve_positions)("last", 10)
