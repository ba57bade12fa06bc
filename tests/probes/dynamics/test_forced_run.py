"""Oracle: the forcing equation by hand, torch's own gradient of it in float64, closed forms, the normal equations."""

import numpy as np
import pytest
import torch

from strobe.probes.dynamics.forced_run import ClippedPLRNN, adaptive_alpha, forced_run


def by_hand(model, x, alpha):
    z, out = x[:, 0], []
    for t in range(x.shape[1] - 1):
        z = model(z if t == 0 else (1 - alpha) * z + alpha * x[:, t])
        out.append(z)
    return torch.stack(out, 1)


def test_the_forced_run_steps_from_the_mixture():
    model, x = ClippedPLRNN(2, 7, seed=1), torch.randn(3, 4, 2)
    with torch.no_grad():
        for alpha in (0, 0.3, 1.0):
            torch.testing.assert_close(forced_run(model, x, alpha), by_hand(model, x, alpha))
        # At alpha 1 every prediction is one step from the data.
        each = model(x[:, :3].reshape(-1, 2)).view(3, 3, 2)
        torch.testing.assert_close(forced_run(model, x, 1.0), each)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_gradients_are_those_of_the_equation(alpha):
    model, x = ClippedPLRNN(3, 11, seed=2).double(), torch.randn(5, 8, 3, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        model.h2.mul_(5)
    weigh, wanted = torch.randn(5, 7, 3, dtype=torch.float64), [x, *model.parameters()]
    found = torch.autograd.grad((forced_run(model, x, alpha) * weigh).sum(), wanted)
    expected = torch.autograd.grad((by_hand(model, x, alpha) * weigh).sum(), wanted)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_a_gradient_of_a_gradient_is_refused():
    model, x = ClippedPLRNN(2, 3), torch.randn(1, 4, 2, requires_grad=True)
    (first,) = torch.autograd.grad(forced_run(model, x, 0.5).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_gradients_through_a_forced_run_are_damped_by_one_minus_alpha_a_step():
    model = ClippedPLRNN(1, 1)
    with torch.no_grad():
        model.A.fill_(2.0)
        model.W1.zero_()
    x = torch.zeros(1, 6, 1)
    for alpha in (0.0, 0.5):
        start = torch.ones(1, 1, requires_grad=True)
        forced_run(model, torch.cat([start[:, None], x[:, 1:]], 1), alpha)[0, -1].backward()
        assert start.grad is not None
        assert float(start.grad) == pytest.approx(2 * (2 * (1 - alpha)) ** 4)


def test_the_map_is_the_module():
    model, z = ClippedPLRNN(3, 5, seed=2), torch.randn(4, 3)
    with torch.no_grad():
        np.testing.assert_allclose(model.as_map().step(z.double().numpy()), model(z).numpy(), atol=1e-5)


def test_the_jacobian_is_the_derivative_of_a_step():
    model, z = ClippedPLRNN(3, 9, seed=3).double(), torch.randn(6, 3, dtype=torch.float64)
    with torch.no_grad():
        model.h2.mul_(5)
    torch.testing.assert_close(model.jacobian(z), torch.func.vmap(torch.func.jacrev(lambda v: model(v[None])[0]))(z))


def test_alpha_balances_the_sequence_that_grows_most():
    model = ClippedPLRNN(1, 1)
    with torch.no_grad():
        # The slope is A = 1 outside [-2, 0] and A + 3 = 4 within.
        model.A.fill_(1.0)
        model.W1.fill_(3.0)
        model.W2.fill_(1.0)
        model.h2.fill_(2.0)
        # Geometric means 1 and (4 4 1 1)^(1/4) = 2.
        x = torch.tensor([[1.0, 1, 1, 1], [-1, -1, 1, 1]])[..., None]
        assert adaptive_alpha(model, x) == pytest.approx(1 - 1 / 2)
        model.A.fill_(0.5)
        assert adaptive_alpha(model, x[:1]) == 0


def test_the_regression_leaves_nothing_that_its_own_units_could_explain():
    # The normal equations: residuals of a least-squares fit are orthogonal to everything it had.
    series = np.random.default_rng(0).normal(size=(500, 2)).cumsum(0) / 10
    model = ClippedPLRNN(2, 12, seed=4)
    model.regress(series, seed=1)
    z, found = series[:-1], model.as_map()
    residual = series[1:] - found.step(z)
    opened = np.maximum(z @ found.W2.T + found.h2, 0)
    active = opened[:, :12] - opened[:, 12:]
    np.testing.assert_allclose(residual.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose((residual * z).mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(residual.T @ active / len(z), 0, atol=1e-5)
    away = np.abs(found.h2[:12]) / np.linalg.norm(found.W2[:12], axis=1)
    assert 1 < away.max() <= 2
