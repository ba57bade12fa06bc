"""Oracle: closed forms and planted answers for the parts of case studies: the Sinkhorn divergence of points, the
chain's stationary statistics, homogeneity, an onion that was planted, brute-force answers of the memory tasks.
"""

import copy

import numpy as np
import pytest
import torch

from strobe.probes.dynamics.case_studies import abrupt, hmm, leaky, onion, robustness
from strobe.probes.dynamics.case_studies.sinkhorn import sinkhorn_divergence
from strobe.probes.dynamics.kept_run import KeptRun


def test_the_sinkhorn_divergence_of_points():
    x, y = torch.randn(40, 3), torch.randn(1, 3)
    assert float(sinkhorn_divergence(x, x.clone())) == pytest.approx(0, abs=1e-4)
    assert float(sinkhorn_divergence(x[:1], y)) == pytest.approx(float((x[0] - y[0]).square().sum() / 2), rel=1e-5)
    # Two batches that are one another moved: half the squared distance moved, since a translation is the optimal plan.
    moved = x + torch.tensor([3.0, 0, 0])
    assert float(sinkhorn_divergence(x, moved)) == pytest.approx(4.5, rel=0.02)


def test_the_sinkhorn_divergence_is_transport_and_not_pairing():
    from scipy.optimize import linear_sum_assignment

    x, y = 3 * torch.randn(30, 2), 3 * torch.randn(30, 2) + 1
    cost = torch.cdist(x, y).square().numpy() / 2
    rows, columns = linear_sum_assignment(cost)
    assert float(sinkhorn_divergence(x, y, blur=0.05, scaling=0.9)) == pytest.approx(
        cost[rows, columns].mean(), rel=0.03
    )


def test_the_gradient_moves_points_along_the_transport():
    x = torch.zeros(1, 2, requires_grad=True)
    sinkhorn_divergence(x, torch.tensor([[2.0, 0.0]])).backward()
    torch.testing.assert_close(x.grad, torch.tensor([[-2.0, 0.0]]), atol=1e-5, rtol=0)


def test_the_chain_has_its_stationary_statistics():
    symbols = hmm.chain(4000, 60, np.random.default_rng(0))
    zero, one, two, switches = hmm.statistics(symbols)
    assert zero == pytest.approx(0.495, abs=0.01)
    assert one == pytest.approx(0.01, abs=0.002)
    assert two == pytest.approx(0.495, abs=0.01)
    assert switches == pytest.approx(0.05, abs=0.003)


def test_a_network_of_relus_without_bias_is_homogeneous_in_its_noise():
    network, noise = hmm.NoiseDriven(12, 3, seed=1), torch.randn(2, 9, 3)
    with torch.no_grad():
        torch.testing.assert_close(network(2 * noise), 2 * network(noise))
        silenced = network(noise, scale=torch.tensor([0.0] + [1.0] * 11))
        assert not silenced[..., 0].any()
        assert silenced[..., 1:].any()


def test_residency_counts_the_steps_until_the_likeliest_symbol_changes():
    network = hmm.NoiseDriven(2, 1)
    with torch.no_grad():
        # h = relu(rotated h): from (1, 0) the units take turns, so each state lasts one step.
        network.W.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        network.U.zero_()
        network.V.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]))
        stays = hmm.residency(network, torch.tensor([[1.0, 0.0]]), 3, 20, 0)
        network.W.copy_(torch.eye(2))
        never = hmm.residency(network, torch.tensor([[1.0, 0.0]]), 3, 20, 0)
    assert stays.tolist() == [1.0]
    assert never.tolist() == [20.0]


def test_zones_are_by_steps_until_the_likeliest_symbol_changes():
    assert hmm._zones(np.array([8.5, 8.0, 2.0, 1.9])) == [0.25, 0.5, 0.25]


def planted(gamma, noise=0.0, n=600, hidden=10):
    rng = np.random.default_rng(0)
    words = rng.integers(5, size=(n, 4))
    E = rng.normal(size=(5, hidden))
    h = np.einsum("l,nlh->nh", gamma ** np.arange(4), E[words]) + 0.3
    return words, h + noise * rng.normal(size=h.shape)


@pytest.mark.parametrize("gamma", [0.1, 0.2, 5.0])
def test_a_planted_onion_is_peeled_exactly_and_its_scale_found(gamma):
    words, h = planted(gamma)
    found = onion.fit_onion(h, words, 5)
    assert found.explained > 0.999
    np.testing.assert_array_equal(onion.peel(found, h), words)
    ratio = found.scales[1] / found.scales[0]
    assert ratio == pytest.approx(gamma, rel=0.05)


def test_under_noise_of_their_own_size_small_layers_are_lost_to_a_linear_probe():
    words, h = planted(0.1, noise=0.05, n=450)
    read = onion.linear_readout(h[:300], words[:300], h[300:])
    right = (read == words[300:]).mean(0)
    assert right[0] > 0.95
    assert right[3] < 0.4


@pytest.mark.parametrize("n", [2, 5])
def test_answers_of_the_memory_tasks_by_brute_force(n):
    bits = np.random.default_rng(0).integers(2, size=(50, 9))
    assert leaky.answers("parity", bits, n).tolist() == [sum(row[-n:]) % 2 for row in bits.tolist()]
    assert leaky.answers("dms", bits, n).tolist() == [int(row[-1] == row[-n]) for row in bits.tolist()]


def test_leaky_units_follow_their_equation():
    network, bits = leaky.LeakyNetwork(3, 1, seed=1), torch.tensor([[1.0, -1.0]])
    with torch.no_grad():
        h = torch.zeros(3)
        for x in bits[0]:
            f = torch.nn.functional.leaky_relu(network.W(h) + network.U(x[None]), 0.1)
            h = (1 - 1 / network.tau) * h + f / network.tau
        torch.testing.assert_close(network(bits)[0, -1], h)
    assert bool((network.tau > 1).all())


def test_a_silenced_unit_says_nothing_to_the_others():
    network, bits = leaky.LeakyNetwork(4, 1, seed=1), torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]])
    cut = copy.deepcopy(network)
    with torch.no_grad():
        cut.W.weight[:, 2] = 0
        h, expected = network(bits, torch.tensor([1.0, 1.0, 0.0, 1.0])), cut(bits)
    assert not h[..., 2].any()
    torch.testing.assert_close(h[..., [0, 1, 3]], expected[..., [0, 1, 3]])


def test_damage_is_done_to_copies_and_to_the_head_that_was_solved():
    curriculum = leaky.Curriculum(heads="multi", most=4, hidden=6, extra=0, batch=4)
    network = leaky.LeakyNetwork(6, 5)
    before = copy.deepcopy(network.state_dict())
    found = robustness.robustness(network, curriculum, 3, seed=2)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    bits = np.random.default_rng((2, 5)).integers(2, size=(1024, 3))
    with torch.no_grad():
        said = network.answers(network(torch.from_numpy(bits * 2.0 - 1).float())[:, -1])[:, 3].argmax(-1).numpy()
    assert found.untouched == pytest.approx((said == bits.sum(1) % 2).mean())
    assert all(0 <= share <= 1 for share in found)


def test_a_head_is_asked_for_its_own_number_of_bits():
    curriculum = leaky.Curriculum(heads="multi", most=4, hidden=5, extra=0)
    network = leaky.LeakyNetwork(5, 5)
    logits, targets = leaky.ask(network, curriculum, 4, np.random.default_rng(0), 30)
    assert logits.shape == (30, 3, 2)
    bits = np.random.default_rng(0).integers(2, size=(30, 4))
    np.testing.assert_array_equal(targets[:, 0].numpy(), bits[:, -2:].sum(1) % 2)
    np.testing.assert_array_equal(targets[:, 2].numpy(), bits.sum(1) % 2)


def of_looks(accuracy, stable):
    at = 25.0 * np.arange(len(accuracy))
    pair = [np.stack([at, np.array(values, dtype=np.float64)], 1) for values in (accuracy, stable, stable, stable)]
    return abrupt._Run(*pair, weights={})


def test_what_came_first_is_read_off_the_looks():
    late, never = of_looks([0.5, 0.9, 0.96], [1, 4, 8]), of_looks([0.5, 0.6, 0.7], [1, 1, 2])
    early = of_looks([0.5, 0.95, 0.99], [1, 3, 8])
    assert (late.jump, late.eight, never.jump, never.eight, early.jump) == (50, 50, -1, -1, 25)
    said = abrupt._finding({0.0: [late, never, early], 0.1: [early, early, never]})
    assert "the jump comes at 50, never, 25 (by seed)" in said
    assert "with 0.1 at 25, 25, never: earlier in 2 of 3 seeds" in said
    assert "no later than the jump in 1 of 3 seeds (at 50, never, 50)" in said
    assert "more fixed points at the jump than before training in 2 of 3 seeds" in said


def test_a_strong_regulariser_brings_the_state_to_rest():
    free = abrupt._train(6, 60, 60, 0.0, 0.3, 1e-2, 0, 4, KeptRun(None)).weights
    held = abrupt._train(6, 60, 60, 1000.0, 0.3, 1e-2, 0, 4, KeptRun(None)).weights

    def motion(weights):
        cell = torch.nn.RNN(3, 6, batch_first=True)
        cell.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items() if k in cell.state_dict()})
        x = torch.from_numpy(abrupt._FLIP_FLOP.generate(16, np.random.default_rng(5), time=64, p=0.3).inputs)
        with torch.no_grad():
            h = cell(x)[0]
        return float((h[:, 1:] - h[:, :-1]).square().mean())

    assert motion(held) < 0.05 * motion(free)
