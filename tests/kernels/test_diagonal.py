"""Oracle: the closed form h_t = P_t (h_0 + sum_s b_s / P_s), P the running product, in float64 where it is accurate."""

import pytest
import torch

from strobe.kernels import scan
from strobe.kernels.diagonal import DIAGONAL, DiagonalCarry, DiagonalSignals, diagonal_scan, recurrence
from strobe.kernels.diagonal.reference import random_signals
from strobe.kernels.linear import effective_attention, transition

BACKENDS = ["reference", "chunked"]
# Largest difference from the closed form seen: 4e-14 and 6e-15 (the closed form's own error) and 4e-7 in float32.
CLOSED_FORM_ATOL = 2e-13
ATOL = {torch.float32: 3e-6, torch.complex64: 3e-6, torch.float64: 1e-14, torch.complex128: 1e-14}


def closed_form(a, b, h0):
    product = a.cumprod(1)
    return product * (h0.unsqueeze(1) + (b / product).cumsum(1))


def problem(batch, time, channels, dtype=torch.float64, seed=0):
    a, b = random_signals(batch, time, dtype=dtype, seed=seed, channels=channels)
    return a, b, random_signals(batch, 1, dtype=dtype, seed=seed + 1, channels=channels).b[:, 0]


def loop(a, b, h0):
    rows = []
    for t in range(b.shape[1]):
        h0 = a[:, t] * h0 + b[:, t]
        rows.append(h0)
    return torch.stack(rows, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_closed_form(backend, dtype):
    a, b, h0 = problem(2, 15, 5, dtype)
    result = scan(DIAGONAL, DiagonalSignals(a, b), DiagonalCarry(h0), backend=backend)
    torch.testing.assert_close(result.read, closed_form(a, b, h0), rtol=0, atol=CLOSED_FORM_ATOL)


@pytest.mark.parametrize("dtype", ATOL, ids=str)
@pytest.mark.parametrize("order", [recurrence._in_place, recurrence._two_level])
@pytest.mark.parametrize("time", [2, 3, 63, 64, 65, 257])
def test_both_orders_equal_a_loop_in_double_precision(order, time, dtype):
    a, b, h0 = problem(2, time, 3, dtype)
    double = torch.complex128 if dtype.is_complex else torch.float64
    expected = loop(a.to(double), b.to(double), h0.to(double))
    torch.testing.assert_close(order(a, b, h0).to(double), expected, rtol=0, atol=ATOL[dtype])


def test_forgetting_completely_is_no_trouble():
    a, b, h0 = problem(2, 300, 3)
    a[:, ::7] = 0
    torch.testing.assert_close(diagonal_scan(a, b, h0), loop(a, b, h0), rtol=0, atol=1e-14)


def test_the_inputs_are_left_as_they_were():
    for order in (recurrence._in_place, recurrence._two_level):
        a, b, h0 = problem(1, 64, 3)
        before = [x.clone() for x in (a, b, h0)]
        order(a, b, h0)
        assert all(torch.equal(x, y) for x, y in zip((a, b, h0), before, strict=True))


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_first_and_second_gradients_are_exact(dtype, blocked, monkeypatch):
    monkeypatch.setattr(recurrence, "blocked", lambda time, slab: blocked)
    inputs = [x.requires_grad_() for x in problem(1, 5, 2, dtype)]
    assert torch.autograd.gradcheck(diagonal_scan, inputs)
    assert torch.autograd.gradgradcheck(diagonal_scan, inputs)


def test_a_broadcast_decay_has_the_gradient_of_the_expanded_one():
    _, b, h0 = problem(2, 150, 3)
    a = torch.rand(1, 150, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    expanded = a.detach().expand_as(b).clone().requires_grad_()
    (diagonal_scan(a, b, h0) ** 2).sum().backward()
    (loop(expanded, b, h0) ** 2).sum().backward()
    torch.testing.assert_close(a.grad, expanded.grad.sum((0, 2), keepdim=True), rtol=1e-13, atol=0)


def test_trailing_axes_of_any_number():
    a, b, h0 = problem(2, 140, 12)
    flat = diagonal_scan(a, b, h0)
    folded = diagonal_scan(a.unflatten(2, (3, 4)), b.unflatten(2, (3, 4)), h0.unflatten(1, (3, 4)))
    assert torch.equal(folded.flatten(2), flat)


def test_shapes_that_do_not_belong_together_are_refused():
    a, b, h0 = problem(2, 6, 3)
    with pytest.raises(ValueError, match=r"got b \(2, 6, 3\), a \(2, 5, 3\) and h0 \(2, 3\)"):
        diagonal_scan(a[:, :5], b, h0)
    with pytest.raises(ValueError, match=r"h0 \(2, 2\)"):
        diagonal_scan(a, b, h0[:, :2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("time", [9, 200])
def test_padding_holds_the_carry_exactly(time, backend):
    a, b, h0 = problem(2, time, 3, torch.float32)
    mask = torch.rand(2, time, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[1] = False
    carry = DiagonalCarry(h0)
    result = scan(DIAGONAL, DiagonalSignals(a, b), carry, mask=mask, backend=backend)
    real = scan(DIAGONAL, DiagonalSignals(a[:1, mask[0]], b[:1, mask[0]]), DiagonalCarry(h0[:1]), backend="reference")
    torch.testing.assert_close(result.read[0, mask[0]], real.read[0], rtol=0, atol=ATOL[torch.float32])
    assert torch.equal(result.carry.h[1], h0[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_effective_attention_reproduces_the_read(dtype):
    a, b, h0 = problem(2, 12, 3, dtype)
    attention = effective_attention(DIAGONAL, DiagonalSignals(a, b))
    assert attention.shape == (2, 3, 12, 12)
    assert (attention.triu(1) == 0).all()
    read = torch.einsum("bcts,bsc->btc", attention, b)
    torch.testing.assert_close(read, closed_form(a, b, torch.zeros_like(h0)), rtol=0, atol=CLOSED_FORM_ATOL)


@pytest.mark.parametrize("backend", BACKENDS)
def test_transition_and_readers(backend):
    a, b, h0 = problem(2, 12, 3, torch.complex128)
    readers = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    result = scan(DIAGONAL, DiagonalSignals(a, b), DiagonalCarry(h0), readers=readers, backend=backend)
    linear = transition(DIAGONAL, DiagonalSignals(a, b))
    before = torch.cat([h0[:, None], result.read[:, :-1]], 1)
    torch.testing.assert_close(linear.apply(before) + linear.write(), result.read, rtol=0, atol=1e-14)
    answers = (result.read[:, :, None] * readers).sum(-1)
    torch.testing.assert_close(result.readers, answers, rtol=0, atol=1e-14)
