"""Oracle: a piece of the Lorenz attractor that no training saw; controls: noise, and the weights of W1 shuffled."""

import numpy as np
import torch

from strobe.probes.dynamics import case_studies
from strobe.probes.dynamics.case_studies.lorenz import DT, _appears, _row, free_run
from strobe.probes.dynamics.dynamical_similarity import d_hellinger, d_stsp
from strobe.probes.dynamics.known_systems import lorenz63, orbit
from strobe.probes.dynamics.lyapunov import lyapunov_spectrum
from strobe.probes.dynamics.piecewise_linear import PiecewiseLinear


def test_the_bundled_network_runs_on_the_attractor():
    weights = case_studies.bundled("lorenz").weights
    network = PiecewiseLinear(*(weights[k] for k in ("A", "W1", "W2", "h1", "h2")))
    start = torch.tensor([[-7.0, 3.0, 20.0]], dtype=torch.float64)
    judged = (orbit(lorenz63(DT), start, 10_000, 1000)[0] - weights["mean"]) / weights["scale"]
    run = free_run(network, judged[0], 10_500)
    assert run is not None
    noise = np.random.default_rng(0).normal(size=judged.shape)
    # Two pieces of the truth of this length differ by .68 nats, and by .047 in D_H.
    distance = d_stsp(judged, run[500:])
    assert distance.value < 0.7 < d_stsp(judged, noise).value / 5
    assert distance.outside < 0.005
    assert d_hellinger(judged, run[500:]) < 0.1 < d_hellinger(judged, noise) / 5
    shuffled = free_run(network.shuffled(0), judged[0], 10_500)
    assert shuffled is None or d_stsp(judged, shuffled[500:]).value > 3 * distance.value
    along = run[1000::1200][:8]
    spectrum = lyapunov_spectrum(network.system(), initial=along, dt=DT, steps=2000, transient=500, control=False)
    # .906, 0 and -14.572 in the literature; one step of a flow has an exponent of zero.
    assert abs(spectrum.mean[0] - 0.906) < 0.1
    assert abs(spectrum.mean[1]) < 0.2


def test_a_map_that_leaves_the_numbers_has_no_run_and_its_row_says_so():
    growing = PiecewiseLinear(2 * np.eye(3), np.zeros((3, 1)), np.zeros((1, 3)), np.zeros(3), np.zeros(1))
    assert free_run(growing, np.ones(3), 100) is None
    assert _row("it", np.zeros((5, 3)), None, None) == ["it", np.inf, np.inf, np.inf, "-", "-", "-"]
    still = PiecewiseLinear(np.eye(3) / 2, np.zeros((3, 1)), np.zeros((1, 3)), np.zeros(3), np.zeros(1))
    np.testing.assert_array_equal(free_run(still, np.ones(3), 2), [[0.5] * 3, [0.25] * 3])


def test_the_effect_needs_chaos_of_the_right_size_and_the_right_places():
    truth = (0.9, 0.01, -13.67)
    assert _appears((0.85, 0.05, -14.0), truth, 0.6, 0.4, 6.4)
    assert not _appears((0.04, 0.04, -14.0), truth, 0.6, 0.4, 6.4)
    assert not _appears((1.2, 0.05, -14.0), truth, 0.6, 0.4, 6.4)
    assert not _appears((0.85, 0.05, -14.0), truth, 1.7, 0.4, 6.4)
    assert not _appears((0.85, 0.3, -14.0), truth, 0.6, 0.4, 6.4)
