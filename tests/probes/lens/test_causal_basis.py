"""Oracle: a readout of rank 3 has three directions that matter, and they lie in its row space; ablating is an
experiment.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch

from strobe.probes.lens import CausalBasis, LogitLens, TunedLens, extract_causal_basis
from strobe.probes.lens.causal_basis_extraction import ablate


@pytest.fixture
def rank_three(toy: Any) -> Any:
    """d 8, 96 tokens, white residual vectors; the unembedding has rank 3.

    Every residual vector comes with its mirror image in the row space: as in an infinite sample of a white Gaussian,
    what is seen of the row space says nothing about the rest, and no direction outside it helps.
    """
    generator = torch.Generator().manual_seed(0)
    inside, outside = (_white(torch.randn(48, n, generator=generator)) for n in (3, 5))
    basis = torch.linalg.qr(torch.randn(8, 8, generator=generator))[0]
    h = torch.cat([torch.cat([inside, sign * outside], 1) for sign in (1, -1)]) @ basis.T
    left = torch.linalg.qr(torch.randn(96, 3, generator=generator))[0]
    scales = torch.tensor([1.6, 1.2, 0.8])
    return toy(h, [lambda x: x], left * scales * 8 @ basis[:, :3].T), basis[:, :3]


def _white(x: torch.Tensor) -> torch.Tensor:
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / len(x))).T


# Position 0 is left out, so each token comes once after a first one.
ROW = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(96)])[None]


def test_a_readout_of_rank_three_has_three_directions(rank_three: Any) -> None:
    model, right = rank_three
    found = extract_causal_basis(LogitLens(), model, ROW, layer=0, restarts=6, n_random=5)
    assert (found.energies[3:] < 2e-3 * found.energies[0]).all()
    assert found.energies[2] > 0.05 * found.energies[0]
    assert np.linalg.norm(found.vectors[:3] @ right.numpy(), axis=1) == pytest.approx(1, abs=1e-3)
    assert found.vectors @ found.vectors.T == pytest.approx(np.eye(8), abs=1e-4)
    assert (np.diff(found.energies) <= 0).all()
    # The control: no random direction has as much as the first, and their mean is far below.
    assert found.random_energies.max() < found.energies[0] and found.random_energies.mean() < 0.5 * found.energies[0]


def test_energies_are_the_kl_of_the_ablation_itself(rank_three: Any) -> None:
    model, _ = rank_three
    found = extract_causal_basis(LogitLens(), model, ROW, layer=0, k=2, restarts=2, n_random=3)
    h, u = model.embed.weight.double().numpy(), model.unembed.weight.detach().double().numpy()

    def p(h: np.ndarray) -> np.ndarray:
        e = np.exp(h @ u.T)
        return e / e.sum(1, keepdims=True)

    for v, energy in zip(found.vectors.astype(float), found.energies):
        ablated = h - np.outer((h - h.mean(0)) @ v, v)
        expected = (p(h) * np.log(p(h) / p(ablated))).sum(1).mean()
        assert energy == pytest.approx(expected, rel=1e-4)


def test_the_first_direction_is_the_best_of_many(rank_three: Any) -> None:
    model, right = rank_three
    found = extract_causal_basis(LogitLens(), model, ROW, layer=0, k=1, restarts=3, n_random=1)
    h, u = model.embed.weight, model.unembed.weight.detach()
    log_p = (h @ u.T).log_softmax(-1)
    v = torch.nn.functional.normalize(torch.randn(4000, 3) @ right.T, dim=1)
    log_q = torch.stack([(ablate(h, one, h.mean(0)) @ u.T).log_softmax(-1) for one in v])
    tried = (log_p.exp() * (log_p - log_q)).sum(-1).mean(-1)
    assert float(tried.max()) <= found.energies[0] * 1.0001
    assert float(tried.max()) > 0.98 * found.energies[0]


def test_the_best_of_several_starts_is_the_best_direction_of_the_plane(toy: Any) -> None:
    # Four tokens, two independent coins: token (a, b) has logit 6 a h_0 + b h_1 / 2. The first coin is nearly certain,
    # so small changes of h_0 do little and the local start is h_1, where the energy has a maximum, but not the largest.
    signs = torch.tensor([[a, b] for a in (1.0, -1.0) for b in (1.0, -1.0)])
    model = toy(signs, [lambda x: x], signs * torch.tensor([6.0, 0.5]))
    row = torch.cat([torch.zeros(1, dtype=torch.long), torch.arange(4).repeat(4)])[None]
    h, u = signs.double(), model.unembed.weight.detach().double()
    log_p = (h @ u.T).log_softmax(-1)

    def energy(angle: float) -> float:
        v = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
        log_q = ((h - (h @ v)[:, None] * v) @ u.T).log_softmax(-1)
        return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())

    several, one = (
        extract_causal_basis(LogitLens(), model, row, layer=0, k=1, restarts=n, n_random=1).energies[0] for n in (6, 1)
    )
    assert several == pytest.approx(max(energy(math.pi * i / 2000) for i in range(2000)), rel=1e-4)
    assert one == pytest.approx(energy(math.pi / 2), rel=1e-4) and one < 0.1 * several


def test_where_variances_differ_one_start_finds_what_many_do(toy: Any) -> None:
    # Residual vectors whose standard deviations span a factor of 10, in a rotated basis; a readout of rank 3. What
    # matters then is neither where they vary most nor where the readout looks, and a start that ignores the variances
    # ends at a lesser maximum (3.49 nats of 3.77).
    generator = torch.Generator().manual_seed(0)
    spread = torch.logspace(0, -1, 8)
    h = _white(torch.randn(96, 8, generator=generator)) * spread[torch.randperm(8, generator=generator)]
    h = h @ torch.linalg.qr(torch.randn(8, 8, generator=generator))[0].T
    unembedding = torch.randn(96, 3, generator=generator) @ torch.randn(3, 8, generator=generator) * 2
    model = toy(h, [lambda x: x], unembedding)
    one, many = (
        extract_causal_basis(LogitLens(), model, ROW, layer=0, k=1, restarts=n, n_random=1).energies[0] for n in (1, 6)
    )
    assert one == pytest.approx(many, rel=1e-3)
    # And no random start outside the extraction does better.
    log_p = (h @ unembedding.T).log_softmax(-1)
    v = torch.nn.functional.normalize(torch.randn(2000, 8, generator=generator), dim=1)
    tried = torch.stack([(ablate(h, u, h.mean(0)) @ unembedding.T).log_softmax(-1) for u in v])
    assert float((log_p.exp() * (log_p - tried)).sum(-1).mean(-1).max()) < many


def test_where_the_lens_is_the_model_ablation_does_the_same_in_both(rank_three: Any) -> None:
    model, _ = rank_three
    found = extract_causal_basis(LogitLens(), model, ROW, layer=0, k=3, restarts=2, n_random=4)
    assert found.model_energies == pytest.approx(found.energies, rel=1e-4)
    assert found.random_model_energies == pytest.approx(found.random_energies, rel=1e-4, abs=1e-6)
    assert found.fidelity == 1.0


def test_ablation_in_the_model_is_felt_downstream_and_not_at_position_zero(small: Any) -> None:
    seen = []
    f = small.blocks[1].f
    small.blocks[1].f = lambda x: (seen.append(x.clone()), f(x))[1]
    tokens = torch.randint(0, 20, (3, 7))
    lens = TunedLens.untrained(small)
    seen.clear()
    found = extract_causal_basis(lens, small, tokens, layer=1, k=1, restarts=1, n_random=1, max_iter=20)
    # The readout's check, the clean run, the direction, the control.
    _, clean, ablated, _ = seen
    v, mean = torch.from_numpy(found.vectors[0]), torch.from_numpy(found.mean)
    assert torch.equal(ablated[:, 0], clean[:, 0])
    assert torch.allclose(mean, clean[:, 1:].flatten(0, 1).mean(0), atol=1e-5)
    assert torch.allclose((ablated[:, 1:] - mean) @ v, torch.zeros(3, 6), atol=1e-5)
    out = lambda x: small.unembed(small.ln_final(f(x)))[:, 1:].double().log_softmax(-1).detach()
    p, q = out(clean), out(ablated)
    assert found.model_energies[0] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-3)


def test_what_there_is_not_is_refused_and_what_there_is_can_be_shown(small: Any, tmp_path: Any) -> None:
    tokens = torch.randint(0, 20, (3, 7))
    with pytest.raises(ValueError, match="layer 2 was asked for; small has translators for 0 to 1"):
        extract_causal_basis(LogitLens(), small, tokens, layer=2)
    with pytest.raises(ValueError, match=r"9 directions, .* give 1 to 8"):
        extract_causal_basis(LogitLens(), small, tokens, layer=1, k=9)
    seen: list[int] = []
    found = extract_causal_basis(
        LogitLens(),
        small,
        tokens,
        layer=1,
        k=2,
        restarts=1,
        n_random=3,
        on_progress=lambda done, total, what: seen.append(done),
    )
    assert seen == [1, 2] and len(found.to_frame()) == 5
    figure = found.figure()
    assert np.allclose(figure.data[0].y, found.energies) and np.allclose(figure.data[1].y, found.random_energies.mean())
    assert len(found.fidelity_figure().data) == 2 and "control: random directions" in found.summary()
    found.save(tmp_path / "c.safetensors")
    assert CausalBasis.load(tmp_path / "c.safetensors") == found
