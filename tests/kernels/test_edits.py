"""Oracle: linear algebra written out for each kind; after a projection its direction is answered zero (a theorem)."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from strobe.kernels import Edit
from strobe.kernels.edits import apply_edit, edits_by_position


class Matrix(NamedTuple):
    S: Tensor  # [batch, heads, key, value]
    n: Tensor  # [batch, heads, key]


class Vector(NamedTuple):
    h: Tensor  # [batch, channels]


@pytest.fixture
def carry():
    return Matrix(torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64))


def edit(kind, value, **kwargs):
    return Edit(position=0, kind=kind, value=value, **kwargs)


def same(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-13, atol=1e-13)


def test_set_add_and_scale(carry):
    value = torch.randn(3, 4, 5, dtype=torch.float64)
    same(apply_edit(edit("set", value), carry).S, torch.stack([value, value]))
    same(apply_edit(edit("set", 0.5), carry).S, torch.full((2, 3, 4, 5), 0.5, dtype=torch.float64))
    same(apply_edit(edit("add", value), carry).S, carry.S + value)
    same(apply_edit(edit("scale", -2), carry).S, carry.S * -2)
    per_head = torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1)
    same(apply_edit(edit("scale", per_head), carry).S, carry.S * per_head)


def test_the_first_field_is_meant_unless_another_is_named(carry):
    edited = apply_edit(edit("scale", 0.0, field="n"), carry)
    assert (edited.n == 0).all()
    assert edited.S is carry.S


def test_only_the_named_heads_change(carry):
    value = torch.randn(2, 2, 4, 5, dtype=torch.float64)
    edited = apply_edit(edit("add", value, heads=[2, 0]), carry).S
    same(edited[:, 2], carry.S[:, 2] + value[:, 0])
    same(edited[:, 0], carry.S[:, 0] + value[:, 1])
    assert torch.equal(edited[:, 1], carry.S[:, 1])


def test_the_carry_given_is_left_as_it_was(carry):
    before = carry.S.clone()
    for kind, value in [("set", 1.0), ("add", 1.0), ("scale", 0.0), ("project_out", torch.ones(4))]:
        apply_edit(edit(kind, value), carry)
        apply_edit(edit(kind, value, heads=[1]), carry)
    assert torch.equal(carry.S, before)


def test_a_set_value_is_not_shared_with_the_caller(carry):
    value = torch.zeros(2, 3, 4, 5, dtype=torch.float64)
    edited = apply_edit(edit("set", value), carry)
    value += 1
    assert (edited.S == 0).all()


@pytest.mark.parametrize("scale", [1.0, 1e-3, 7.0])
def test_after_projecting_a_key_out_the_memory_answers_zero_to_it(carry, scale):
    direction = scale * torch.randn(4, dtype=torch.float64)
    edited = apply_edit(edit("project_out", direction), carry).S
    same(torch.einsum("k,bhkv->bhv", direction, edited), torch.zeros(2, 3, 5, dtype=torch.float64))
    # What is orthogonal to the direction is answered as before.
    other = torch.randn(4, dtype=torch.float64)
    other -= direction * (other @ direction) / (direction @ direction)
    same(torch.einsum("k,bhkv->bhv", other, edited), torch.einsum("k,bhkv->bhv", other, carry.S))


def test_projecting_a_whole_matrix_out_removes_that_component_only(carry):
    direction = torch.randn(4, 5, dtype=torch.float64)
    edited = apply_edit(edit("project_out", direction, heads=[1]), carry).S
    component = (carry.S[:, 1] * direction).sum((1, 2)) / (direction**2).sum()
    same(edited[:, 1], carry.S[:, 1] - component[:, None, None] * direction)
    assert torch.equal(edited[:, 0], carry.S[:, 0])


def test_projecting_channels_of_a_vector_carry():
    h = torch.randn(2, 6, dtype=torch.float64)
    direction = torch.randn(6, dtype=torch.float64)
    edited = apply_edit(edit("project_out", direction), Vector(h)).h
    same(edited @ direction, torch.zeros(2, dtype=torch.float64))
    edited = apply_edit(edit("project_out", direction[:2], heads=[4, 1]), Vector(h)).h
    same(edited[:, [4, 1]] @ direction[:2], torch.zeros(2, dtype=torch.float64))
    assert torch.equal(edited[:, [0, 2, 3, 5]], h[:, [0, 2, 3, 5]])


def test_gradients_reach_the_carry_and_the_value(carry):
    S, value = carry.S.requires_grad_(), torch.randn(4, dtype=torch.float64, requires_grad=True)
    for kind in ("add", "scale", "project_out"):
        shaped = value if kind == "project_out" else value[:, None]
        assert torch.autograd.gradcheck(
            lambda S, _, kind=kind, shaped=shaped: apply_edit(edit(kind, shaped), Matrix(S, carry.n)).S, (S, value)
        )


def test_edits_are_grouped_by_absolute_position_in_the_order_given():
    edits = [
        Edit(position=-1, kind="scale", value=0.0),
        Edit(position=3, kind="add", value=1.0),
        Edit(position=9, kind="add", value=2.0),
        Edit(position=-7, kind="set", value=3.0),
    ]
    grouped = edits_by_position(edits, 10)
    assert [(g.position, g.edits) for g in grouped] == [(3, (edits[1], edits[3])), (9, (edits[0], edits[2]))]


def test_errors_say_what_was_asked_what_was_found_and_what_there_is(carry):
    # Not through the constructor, where the shape checker that runs in tests would speak first.
    unknown = object.__new__(Edit)
    object.__setattr__(unknown, "kind", "erase")
    with pytest.raises(ValueError, match="'erase' does not exist; the kinds are set, add, scale, project_out"):
        unknown.__post_init__()
    with pytest.raises(ValueError, match="field 'C'; this carry has S, n"):
        apply_edit(edit("set", 0.0, field="C"), carry)
    with pytest.raises(ValueError, match=r"heads \[0, 3\] of 'S', whose shape is \(2, 3, 4, 5\)"):
        apply_edit(edit("set", 0.0, heads=[0, 3]), carry)
    with pytest.raises(ValueError, match=r"'add' of 'S' at position 0: a value of shape \(4,\) .* \(2, 3, 4, 5\)"):
        apply_edit(edit("add", torch.zeros(4)), carry)
    with pytest.raises(ValueError, match=r"shape \(7,\) matches neither the end of \(2, 3, 4, 5\)"):
        apply_edit(edit("project_out", torch.ones(7)), carry)
    with pytest.raises(ValueError, match="positive norm, got norm 0"):
        apply_edit(edit("project_out", torch.zeros(4)), carry)
    for position in (10, -11):
        with pytest.raises(IndexError, match=rf"edit at position {position}, but the scan has 10 tokens \(0 to 9\)"):
            edits_by_position([Edit(position=position, kind="set", value=0.0)], 10)
