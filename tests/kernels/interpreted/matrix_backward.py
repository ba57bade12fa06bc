"""Oracle: autograd through the loop over each family's `step` in float64."""

from dataclasses import replace

import pytest
import torch
from matrix_cases import CASES, case_id, expected, gradients, leaves, outputs, problem, run

from strobe.core.tolerances import assert_close
from strobe.kernels import Edit

every_case = pytest.mark.parametrize("case", CASES, ids=case_id)


def compare(p, extra=(), exact_extra=(), **kwargs):
    leaves(p)
    leaves(p.exact)
    edits = kwargs.pop("edits", lambda values: [])
    found = gradients(p, run(p, edits=edits(extra), **kwargs), extra)
    wanted = gradients(p.exact, expected(p, edits=edits(exact_extra), **kwargs), exact_extra)
    for name, x in found.items():
        assert x.dtype == torch.float32
        assert wanted[name].abs().max() > 0, f"the oracle's gradient of {name} is zero"
        assert_close(x, wanted[name], kind="scan")


@every_case
def test_every_input_through_reads_carry_captures_and_readers(case):
    compare(problem(case, time=33), capture=[20, -1])


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=case_id)
def test_through_edits_and_to_their_values(case):
    values = [torch.randn(8), torch.randn(2, 8, 6), torch.rand(8, 1)]

    def edits(values):
        return [
            Edit(position=4, kind="project_out", value=values[0]),
            Edit(position=9, kind="set", value=values[1][:1], heads=[0]),
            Edit(position=15, kind="add", value=values[1]),
            Edit(position=16, kind="scale", value=values[2], heads=[1]),
        ]

    extra = [x.clone().requires_grad_() for x in values]
    exact = [x.double().requires_grad_() for x in values]
    compare(problem(case, time=19), extra, exact, edits=edits, capture=[9, 17])


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=case_id)
def test_longer_chunks(case, monkeypatch):
    from strobe.kernels.triton_matrix import adapter

    table = adapter.plan
    monkeypatch.setattr(adapter, "plan", lambda *sizes: replace(table(*sizes), chunk=32))
    compare(problem(case, time=39), capture=[33])


@pytest.mark.parametrize("case", [CASES[1], CASES[2]], ids=case_id)
@pytest.mark.parametrize("decay", [-30.0, -torch.inf, 0.0], ids=["strong", "reset", "none"])
def test_extreme_decays(case, decay):
    def change(signals):
        g = signals.log_decay.clone()
        g[:, 5:9] = decay
        return signals._replace(log_decay=g)

    compare(problem(case, time=18, heads=1, change=change))


@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=case_id)
def test_of_one_token(case):
    compare(problem(case, time=1))


def test_of_what_the_loss_leaves_out():
    p = problem(CASES[4], time=20)
    leaves(p)
    leaves(p.exact)
    for name in ("carry", "captured"):
        weights = torch.randn(8, 6)
        found = (outputs(run(p, capture=[7]))[name] * weights).sum()
        wanted = (outputs(expected(p, capture=[7]))[name] * weights).sum()
        inputs = [x for x in (*p.signals, p.carry.S) if x is not p.signals.q]
        exact = [x for x in (*p.exact.signals, p.exact.carry.S) if x is not p.exact.signals.q]
        for x, y in zip(torch.autograd.grad(found, inputs), torch.autograd.grad(wanted, exact), strict=True):
            assert_close(x, y, kind="scan")


def test_second_derivatives_are_refused():
    p = problem(CASES[0], time=3)
    leaves(p)
    result = run(p, readers=None)
    first = torch.autograd.grad(result.read.square().sum(), p.signals.v, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="matrix_scan_backward"):
        torch.autograd.grad(first.sum(), p.signals.k)


def test_a_gradient_of_an_operator_that_kept_nothing_is_refused():
    from strobe.kernels.triton_matrix.operator import matrix_scan

    p = problem(CASES[0], time=3)
    v = p.signals.v.requires_grad_()
    q, k, _, g = p.signals
    read = matrix_scan(q, k, v, g, None, None, p.carry.S, None, None, [], [], [], None, 3, 16, 0, False)[0]
    with pytest.raises(RuntimeError, match=r"ran without keep=True.*call strobe\.kernels\.scan"):
        read.sum().backward()
