"""Oracle: autograd through the loop over each cell's `step` in float64."""

import pytest
import torch
from rnn_cases import CELLS, edits, expected, gradients, leaves, outputs, padding, problem, run

from strobe.core.tolerances import assert_close
from strobe.kernels import Edit
from strobe.kernels.triton_rnn import adapter
from strobe.kernels.triton_rnn.operator import rnn_scan

every_cell = pytest.mark.parametrize("cell", CELLS)


def compare(p, extra=(), exact_extra=(), **kwargs):
    leaves(p)
    leaves(p.exact)
    make = kwargs.pop("edits", lambda values: [])
    found = gradients(p, run(p, edits=make(extra), **kwargs), extra)
    wanted = gradients(p.exact, expected(p, edits=make(exact_extra), **kwargs), exact_extra)
    for name, x in found.items():
        assert x.dtype == torch.float32
        assert wanted[name].abs().max() > 0, f"the oracle's gradient of {name} is zero"
        assert_close(x, wanted[name], kind="scan")


@every_cell
@pytest.mark.parametrize(("time", "batch", "hidden"), [(17, 3, 7), (1, 1, 1), (3, 17, 33), (31, 1, 5)])
def test_every_input_through_reads_carry_captures_and_readers(cell, time, batch, hidden):
    compare(problem(cell, time=time, batch=batch, hidden=hidden), capture=[0, time // 2, -1])


@every_cell
def test_through_edits_inside_one_launch(cell, monkeypatch):
    launches = []
    monkeypatch.setattr(adapter, "rnn_scan", lambda *a: launches.append(a) or rnn_scan(*a))
    compare(problem(cell), capture=[4, 9, 10], edits=lambda values: edits(cell))
    assert len(launches) == 1


@every_cell
def test_heads_of_the_recurrent_weights(cell):
    compare(problem(cell, hidden=6, heads=2, time=9), capture=[3, 8])


@every_cell
def test_heads_whose_weights_are_read_in_pieces(cell):
    compare(
        problem(cell, hidden=194, heads=2, time=13),
        capture=[3, 12],
        mask=padding(time=13),
        edits=lambda values: [e for e in edits(cell, 194) if e.kind != "project_out"],
    )


def test_an_exponential_gate_at_its_ties_and_extremes():
    """Two tokens tie (i~ = log f + m, f so small that float64 has it too), then i~ wins, then the past does."""

    def change(signals):
        x = torch.zeros_like(signals.x)
        W, b = torch.zeros(4, 7, 3), torch.zeros(4, 7)
        W[0, :, 0], W[1, :, 1], W[2:] = 1, 1, signals.W.unflatten(0, (4, 7))[2:]
        x[:, :, 0] = torch.tensor([-50.0, -100.0, 90.0, 60.0, 1.0])
        x[:, :, 1] = torch.tensor([-50.0, -50.0, -3.0, -3.0, 100.0])
        x[:, :, 2] = signals.x[:, :, 2]
        return signals._replace(x=x, W=W.flatten(0, 1), b=b.flatten(), R=signals.R * 0)

    p = problem("slstm", time=5, change=change)
    for it in (p, p.exact):
        it.carry.m.zero_()
    leaves(p)
    leaves(p.exact)
    found, wanted = gradients(p, run(p, capture=[0, 2, 3])), gradients(p.exact, expected(p, capture=[0, 2, 3]))
    for name, x in found.items():
        assert_close(x, wanted[name], kind="scan")


@every_cell
def test_padding(cell):
    compare(problem(cell), capture=[2, 9], mask=padding(), edits=lambda values: edits(cell))


@every_cell
def test_to_an_edits_value_at_which_the_scan_is_cut(cell):
    values = [torch.randn(7), torch.randn(3, 7)]

    def made(values):
        return [
            Edit(position=3, kind="scale", value=0.5),
            Edit(position=5, kind="project_out", value=values[0]),
            Edit(position=8, kind="add", value=values[1]),
        ]

    extra = [x.clone().requires_grad_() for x in values]
    exact = [x.double().requires_grad_() for x in values]
    compare(problem(cell, time=11), extra, exact, edits=made, capture=[5, 9])


@every_cell
def test_of_what_the_loss_leaves_out(cell):
    p = problem(cell, time=9)
    leaves(p)
    leaves(p.exact)
    for name in outputs(run(p, capture=[4])):
        found, wanted = outputs(run(p, capture=[4]))[name], outputs(expected(p, capture=[4]))[name]
        weights = torch.randn(found.shape)
        inputs, exact = (p.signals.x, p.signals.R, p.carry.h), (p.exact.signals.x, p.exact.signals.R, p.exact.carry.h)
        ours = torch.autograd.grad((found * weights).sum(), inputs)
        theirs = torch.autograd.grad((wanted * weights).sum(), exact)
        for x, y in zip(ours, theirs, strict=True):
            assert_close(x, y, kind="scan")


def test_second_derivatives_are_refused():
    p = problem("lstm", time=3)
    leaves(p)
    first = torch.autograd.grad(run(p).read.square().sum(), p.signals.R, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="rnn_scan_backward"):
        torch.autograd.grad(first.sum(), p.signals.W)


def test_a_gradient_of_an_operator_that_kept_nothing_is_refused():
    pre = torch.randn(1, 2, 1, 1, 3, requires_grad=True)
    read = rnn_scan(
        "elman", pre, torch.randn(1, 1, 3, 3), None, None, torch.zeros(1, 1, 1, 3), None, None, [], [], False
    )
    with pytest.raises(RuntimeError, match=r"ran without keep=True.*call strobe\.kernels\.scan"):
        read[0].sum().backward()
