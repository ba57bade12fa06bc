"""Oracle: torch.nn's own RNN, GRU and LSTM for one step (an sLSTM's: its family's definition), and automatic
differentiation for every Jacobian."""

import numpy as np
import pytest
import torch
from torch import nn

from strobe.kernels.rnn import SLSTM, SLSTMCarry
from strobe.kernels.rnn.slstm import random_signals as slstm_signals
from strobe.probes.fixed_points import fixed_points, from_module
from strobe.probes.fixed_points.finder import Limits, solve
from strobe.probes.fixed_points.modules import cell_system
from strobe.probes.fixed_points.system import differentiate

MODULES = [
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu"}),
    (nn.RNN, {"num_layers": 2}),
    (nn.GRU, {}),
    (nn.GRU, {"bias": False}),
    (nn.GRU, {"num_layers": 2}),
    (nn.LSTM, {}),
    (nn.LSTM, {"num_layers": 2}),
    (nn.RNNCell, {}),
    (nn.GRUCell, {}),
    (nn.LSTMCell, {}),
]


def build(kind, options, gain=2.0, hidden=5):
    torch.manual_seed(3)
    module = kind(4, hidden, **options)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(gain)
    return module


def one_step(module, held, x):
    """One step by torch itself, in float64, on a flat carry [n, size] laid out as the system's."""
    import copy

    double = copy.deepcopy(module).double()
    layers = getattr(module, "num_layers", 1)
    parts = x.unflatten(-1, (layers, -1)).movedim(1, 0)
    cell = not isinstance(module, nn.RNNBase)
    inputs = held.double().expand(len(x), -1)
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        carry = tuple(p.contiguous() for p in parts.chunk(2, -1))
        after = (
            double(inputs, tuple(p[0] for p in carry))
            if cell
            else double(inputs[:, None].mT.mT.movedim(0, 1), carry)[1]
        )
        after = [a[None] for a in after] if cell else after
        out = torch.cat(list(after), -1)
    elif cell:
        out = double(inputs, parts[0])[None]
    else:
        out = double(inputs[None], parts.contiguous())[1]
    return out.movedim(0, 1).flatten(1).detach()


@pytest.mark.parametrize(("kind", "options"), MODULES)
def test_a_step_and_its_jacobian(kind, options):
    module = build(kind, options)
    held = torch.tensor([0.5, -1.0, 0.3, 2.0])
    system = from_module(module, held)
    x = torch.randn(7, system.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(system.step(x), one_step(module, held, x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(system.jacobian(x), differentiate(system.step)(x), rtol=1e-10, atol=1e-12)
    y = system.roots.reduce(x)
    residual, slope = system.roots.linearise(y)
    torch.testing.assert_close(residual, system.roots.residual(y))
    torch.testing.assert_close(slope, differentiate(system.roots.residual)(y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("kind", "options"), [m for m in MODULES if m[1].get("nonlinearity") != "relu"])
def test_the_box_is_sent_into_itself(kind, options):
    system = from_module(build(kind, options))
    corners = 2 * torch.randint(2, (200, system.size), generator=torch.Generator().manual_seed(1)) - 1
    after = system.step(corners * system.box)
    assert bool((after.abs() <= system.box).all())


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("layers", [1, 2])
def test_roots_of_the_restated_problem_are_fixed_points(kind, layers):
    module = build(kind, {"num_layers": layers}, gain=3.0, hidden=4)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    result = fixed_points(module, n_initial=48, rounds=2)
    held = torch.zeros(4)
    x = torch.from_numpy(result.points)
    assert len(x) >= 1
    torch.testing.assert_close(one_step(module, held, x), x, rtol=0, atol=1e-11)
    assert result.speeds.max() < 1e-11
    assert result.index_sum == 1
    assert result.control is not None
    assert all(torch.equal(p, before[n]) and p.requires_grad and p.grad is None for n, p in module.named_parameters())


def test_shuffling_keeps_the_numbers_of_every_gate():
    module = build(nn.GRU, {})
    system = from_module(module)
    a, b, again = system.shuffled(0), system.shuffled(1), system.shuffled(0)
    x = torch.full((1, 5), 0.2, dtype=torch.float64)
    assert torch.equal(a.step(x), again.step(x))
    assert not torch.equal(a.step(x), b.step(x))
    assert not torch.equal(a.step(x), system.step(x))
    zero = torch.zeros(1, 5, dtype=torch.float64)
    assert torch.equal(a.step(zero), system.step(zero))


def test_levenberg_marquardt_takes_over_where_newton_has_no_step():
    """At -1/4 the Jacobian of y^2 + y/2 - 1 is 0, and close by Newton's step overshoots; it is no minimum there yet.

    A hundred times the residual, so that a step of the map, y + r, leads nowhere.
    """
    from strobe.probes.fixed_points.system import Roots

    def residual(y):
        return 100 * (y**2 + 0.5 * y - 1)

    roots = Roots(residual=residual, linearise=lambda y: (residual(y), 100 * (2 * y + 0.5)[:, :, None]))
    start = torch.tensor([[-0.25], [-0.25 - 1e-9], [3.0]], dtype=torch.float64)
    y, outcome, _ = solve(roots, start, Limits())
    expected = np.roots([1, 0.5, -1])
    gap = np.abs(y.numpy() - expected[None]).min(1)
    assert (gap[1:] < 1e-9).all()
    assert outcome.tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    ("module", "error", "said"),
    [
        (nn.Linear(3, 3), TypeError, "from_function"),
        (nn.GRU(3, 4, bidirectional=True), ValueError, "bidirectional"),
        (nn.LSTM(3, 4, proj_size=2), ValueError, "projections"),
    ],
)
def test_modules_that_are_no_single_recurrence_are_refused(module, error, said):
    with pytest.raises(error, match=said):
        from_module(module)


def test_a_held_input_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="4 finite numbers"):
        from_module(nn.GRU(4, 3), [1.0, 2.0])


def _slstm(heads=2, hidden=6, gain=1.0):
    signals = slstm_signals(1, 1, dtype=torch.float64, seed=2, hidden=hidden, heads=heads)
    signals = signals._replace(R=gain * signals.R)
    x = signals.x[0, 0]
    zero = torch.zeros_like(signals.b)
    return signals, cell_system("slstm", signals.W, signals.R, signals.b, zero, x, name="slstm", held="")


def test_an_slstm_steps_as_its_family_defines_and_rests_where_its_search_says():
    signals, system = _slstm()
    x = torch.randn(3, system.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 12:18] = x[:, 12:18].abs() + 1
    carry = SLSTM.step(SLSTM.at(signals, 0)._replace(x=signals.x[:, 0].expand(3, -1)), SLSTMCarry(*x.split(6, -1)))[0]
    torch.testing.assert_close(system.step(x), torch.cat(carry, -1), rtol=1e-14, atol=1e-14)
    y = x[:, :6].tanh()
    _, slope = system.roots.linearise(y)
    torch.testing.assert_close(slope, differentiate(system.roots.residual)(y), rtol=1e-12, atol=1e-12)
    # What the restated problem calls a root is one of the step, in every field, once its gates have come to rest.
    found = fixed_points(system, x, rounds=2, control=None)
    assert len(found.points) >= 1 and found.speeds.max() <= 1e-12
    still = torch.from_numpy(found.points)
    torch.testing.assert_close(system.step(still), still, rtol=0, atol=1e-12)
    run = x
    for _ in range(4000):
        run = system.step(run)
    ends = torch.cdist(run, still).amin(1)
    assert ends.max() < 1e-9
