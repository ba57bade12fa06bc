"""Oracle: exponents that are known: ln |eigenvalue| of a linear map, ln 2 of the logistic map, .419 and sum ln b of
Henon's, (.906, 0, -14.57) with sum -41/3 of Lorenz's; mean log decays, and ourselves by finite differences.
"""

import math

import numpy as np
import pytest
import torch
from cutting import stopped_after

from strobe.core.result import load_result
from strobe.models import HookedLM, ModelConfig
from strobe.probes.dynamics.driven import driven_lyapunov_spectrum
from strobe.probes.dynamics.known_systems import henon, logistic, lorenz63
from strobe.probes.dynamics.lyapunov import lyapunov_spectrum
from strobe.probes.fixed_points import from_function


def starts(n, size, centre=0.1, spread=0.05):
    return centre + spread * torch.rand(n, size, dtype=torch.float64)


def test_a_linear_map_has_the_logarithms_of_its_eigenvalues():
    A = torch.diag(torch.tensor([1.3, 0.9, -0.5, 0.02], dtype=torch.float64))
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    A = basis @ (A + torch.triu(torch.ones(4, 4, dtype=torch.float64), 1) * 0.3) @ basis.T
    # Contracted in size by the tangent only: the state itself may grow, so few steps.
    found = lyapunov_spectrum(from_function(lambda x: x @ A.T, 4), steps=800, transient=0, initial=starts(1, 4))
    np.testing.assert_allclose(found.mean, np.log([1.3, 0.9, 0.5, 0.02]), atol=5e-3)
    assert found.mean.sum() == pytest.approx(math.log(1.3 * 0.9 * 0.5 * 0.02), abs=1e-10)


def test_the_logistic_map_has_ln_2():
    found = lyapunov_spectrum(logistic(), steps=4000, transient=100, initial=starts(8, 1, 0.3), control=False)
    assert found.mean[0] == pytest.approx(math.log(2), abs=2e-3)


def test_the_steps_after_the_transient_are_counted_and_no_other():
    x, expected = 0.3, []
    for t in range(11 + 50):
        if t >= 11:
            expected.append(math.log(abs(4 * (1 - 2 * x))))
        x = 4 * x * (1 - x)
    initial = torch.tensor([[0.3]], dtype=torch.float64)
    found = lyapunov_spectrum(logistic(), steps=50, transient=11, initial=initial, control=False)
    assert found.mean[0] == pytest.approx(np.mean(expected), abs=1e-9)


def test_henon():
    found = lyapunov_spectrum(henon(), steps=3000, transient=200, initial=starts(8, 2))
    assert found.mean[0] == pytest.approx(0.4192, abs=0.012)
    assert found.mean.sum() == pytest.approx(math.log(0.3), abs=1e-10)
    assert found.kaplan_yorke == pytest.approx(1.258, abs=0.01)
    # The same stretches in random order: another spectrum with the same sum.
    assert found.control.sum() == pytest.approx(math.log(0.3), abs=1e-10)
    assert "chaotic" in found.summary()


def test_lorenz():
    found = lyapunov_spectrum(lorenz63(), steps=1200, transient=800, initial=starts(64, 3, 5.0, 10.0), dt=0.01)
    np.testing.assert_allclose(found.mean, [0.906, 0, -14.572], atol=0.05)
    assert found.mean.sum() == pytest.approx(-41 / 3, abs=1e-3)
    # Out of order the stretches add up to the same sum, and the flow's neutral direction is gone.
    assert found.control.sum() == pytest.approx(-41 / 3, abs=1e-3)
    assert abs(found.control[1]) > 0.1


def test_the_flow_s_derivative_is_that_of_its_step():
    system, x = lorenz63(), starts(5, 3, 5.0, 10.0)
    from strobe.probes.fixed_points.system import differentiate

    torch.testing.assert_close(system.jacobian(x), differentiate(system.step)(x), rtol=1e-12, atol=1e-12)


def test_the_largest_exponents_alone_are_those_of_the_full_spectrum():
    torch.manual_seed(3)
    cell = torch.nn.RNN(2, 12)
    torch.nn.init.normal_(cell.weight_hh_l0, std=1.6 / 12**0.5)
    full = lyapunov_spectrum(cell, steps=400, transient=50, control=False)
    some = lyapunov_spectrum(cell, steps=400, transient=50, n_exponents=3, control=False)
    np.testing.assert_allclose(some.mean, full.mean[:3], atol=1e-10)
    np.testing.assert_allclose(some.volume, full.mean.sum(), atol=1e-9)


def test_an_orbit_that_runs_away_is_refused():
    with pytest.raises(ValueError, match="2 of 2 orbits leave the finite numbers"):
        lyapunov_spectrum(henon(), initial=torch.full((2, 2), 9.0, dtype=torch.float64), steps=200, transient=0)


@pytest.mark.parametrize("kind", ["elman", "gru", "lstm"])
def test_a_cell_driven_by_tokens_has_the_exponents_of_its_finite_differences(kind):
    torch.manual_seed(1)
    config = ModelConfig(d_model=5, d_vocab=7, layers=[kind], mixer_options={kind: {"hidden": 5}}, mlp="none")
    model = HookedLM(config)
    with torch.no_grad():
        model.blocks[0].mixer.R.mul_(2)
    tokens = torch.randint(7, (6,))
    found = driven_lyapunov_spectrum(model, tokens, control=False)
    double = model.double()
    fields = {"elman": ("h",), "gru": ("h",), "lstm": ("h", "c")}[kind]

    def after(flat: torch.Tensor) -> torch.Tensor:
        state = double.init_state(1)
        old = state.carries["blocks.0.mixer"]
        state.carries["blocks.0.mixer"] = type(old)(*(x[None] for x in flat.split(5)))
        new = double.state_after(tokens[None], state).carries["blocks.0.mixer"]
        return torch.cat([getattr(new, f)[0] for f in fields])

    size = 5 * len(fields)
    step = 1e-6 * torch.eye(size, dtype=torch.float64)
    with torch.no_grad():
        J = torch.stack([(after(e) - after(-e)) / 2e-6 for e in step], 1)
    # Few tokens: the differences resolve no singular value that is lost among the others' rounding.
    if kind != "lstm":
        assert found.mean.sum() * 6 == pytest.approx(float(torch.linalg.slogdet(J)[1]), abs=5e-3)
    q = torch.eye(size, dtype=torch.float64)[:, :1]
    assert found.exponents[0, 0] * 6 <= float(torch.linalg.matrix_norm(J, 2).log()) + 1e-4
    first = float((J @ q).norm().log())
    assert first == pytest.approx(float(_first_column(model, tokens, size)), abs=1e-3)


def _first_column(model, tokens, size):
    from strobe.probes.dynamics import driven
    from strobe.probes.dynamics.lyapunov import growth

    with torch.no_grad():
        signals, mixer = driven._signals(model, "blocks.0.mixer", tokens[None])
        jacobians = driven._cell_jacobians(mixer.family, signals)
        return growth(jacobians, tokens.shape[0], 1, lambda *_: None).stretch[0, 0]


def _linear(name, **options):
    return HookedLM(ModelConfig(d_model=8, d_vocab=11, layers=[name], mixer_options={name: options}, mlp="none"))


@pytest.mark.parametrize(
    ("kind", "options"), [("gru", {"hidden": 4}), ("gated_deltanet", {"heads": 2, "key": 3, "value": 4})]
)
def test_where_it_is_stopped_the_positions_counted_and_the_control_over_as_many_are_given(kind, options):
    model, tokens = _linear(kind, **options), torch.randint(11, (603,))

    def ask(x, **how):
        return driven_lyapunov_spectrum(model, x, transient=3, **how)

    # Told after 256 positions, after 512 and after all.
    cut, last, whole = (stopped_after(lambda **how: ask(tokens, **how), n) for n in (1, 2, 3))
    fresh, shuffled = ask(tokens[:259], control=False), tokens[torch.randperm(603, generator=_seeded(0))]
    np.testing.assert_allclose(cut.exponents, fresh.exponents, atol=1e-12)
    np.testing.assert_allclose(cut.volume, fresh.volume, atol=1e-12)
    np.testing.assert_allclose(cut.control, ask(shuffled[:259], control=False).mean, atol=1e-6)
    np.testing.assert_allclose(whole.exponents, ask(tokens).exponents, atol=1e-12)
    assert cut.at.max() <= 256 < last.at.max() and not whole.partial
    assert cut.partial == "cut short after 256 of 600 positions" and cut.partial in cut.summary()
    assert cut.figure().layout.title.subtitle.text.startswith(cut.partial)


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_a_diagonal_decay_has_its_mean_logarithm():
    model = _linear("mamba2", heads=2, head_dim=4, state=3)
    tokens = torch.randint(11, (19,))
    found = driven_lyapunov_spectrum(model, tokens, transient=4)
    _, cache = model.run_with_cache(tokens[None], states="all")
    state = cache["blocks.0.mixer.hook_state"]
    assert state.shape[1] == 19
    decay = next(cache[k] for k in cache if k.endswith("hook_decay"))
    logs = decay[0].double().reshape(19, 2)
    logs = logs if float(logs.max()) <= 0 else logs.log()
    np.testing.assert_allclose(found.exponents[:, 0], logs[4:].mean(0).numpy(), rtol=1e-5)
    assert len(found.control) == 1


def test_the_sum_of_a_delta_layer_is_the_mean_log_determinant():
    model = _linear("gated_deltanet", heads=2, key=3, value=4)
    found = driven_lyapunov_spectrum(model, torch.randint(11, (17,)), control=False)
    assert found.exponents.shape == (2, 3)
    from strobe.probes.dynamics import driven

    with torch.no_grad():
        torch.manual_seed(0)
        signals, mixer = driven._signals(model, "blocks.0.mixer", torch.randint(11, (1, 17)))
    A = mixer.family.transition(signals).operator(3)
    again = driven_lyapunov_spectrum(model, _same_tokens(), control=False)
    logs = torch.linalg.slogdet(A)[1][0].mean(0)
    np.testing.assert_allclose(again.exponents.sum(1), logs.detach().numpy(), atol=1e-9)


@pytest.mark.parametrize(
    ("name", "options"), [("elman", {"hidden": 5}), ("gated_deltanet", {"heads": 2, "key": 3, "value": 4})]
)
def test_the_positions_after_the_transient_are_counted_and_no_other(name, options):
    from strobe.probes.dynamics.driven import layer_jacobians

    model, tokens = _linear(name, **options), torch.randint(11, (17,))
    found = driven_lyapunov_spectrum(model, tokens, transient=3, control=False)
    logs = torch.stack([torch.linalg.slogdet(J)[1] for J in list(layer_jacobians(model, tokens))[3:]])
    np.testing.assert_allclose(found.exponents.sum(1), logs.mean(0).numpy(), atol=1e-9)


def _same_tokens():
    torch.manual_seed(0)
    return torch.randint(11, (1, 17))[0]


def test_a_result_comes_back_from_its_file_and_draws_its_control(tmp_path):
    found = lyapunov_spectrum(henon(), steps=200, transient=50, initial=starts(2, 2))
    assert load_result(found.save(tmp_path / "spectrum.safetensors")) == found
    assert [t.name for t in found.figure().data] == ["random order (control)", "mean of 2 orbits"]
    assert list(found.to_frame()["exponent"]) == [1, 2]
