"""Oracle: maps of a known class, planted: the class that was planted leaves nothing, and what was mixed in comes back.

Sizes as in the reference (600 tokens of 16 dimensions, 48 neighbours).
"""

import pytest
import torch

from strobe.probes.geometry import global_maps, local_maps
from strobe.probes.geometry.measures import per_token
from strobe.probes.geometry.neighbours import neighbours

N, D, K = 600, 16, 48
GENERATOR = torch.Generator().manual_seed(4)


def normal(*shape):
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


X = normal(N, D)
SEQUENCE = torch.arange(N) // 10
ORTHOGONAL = torch.linalg.qr(normal(D, D)).Q
RANK2 = normal(D, 2) @ normal(2, D) / 4
SCALES = 1 + 0.5 * normal(D)


def fitted(name, y, ridge=1e-8, rank=2, x=X):
    near = neighbours(x, x, SEQUENCE, SEQUENCE, K)
    extra = (rank,) if name == "low_rank" else ()
    return getattr(local_maps, name)(x, x[near], y[near], ridge, *extra)


def measured(y, update, x=X):
    return {name: float(v.nanmean()) for name, v in per_token(x, y, update)[0].items()}


@pytest.mark.parametrize(
    ("name", "y"), [("diagonal", X * SCALES), ("low_rank", X + X @ RANK2), ("orthogonal", X @ ORTHOGONAL)]
)
def test_the_planted_class_leaves_nothing_and_another_does(name, y):
    found = measured(y, fitted(name, y))
    assert found["error_state"] < 1e-5
    assert found["cos_update"] > 1 - 1e-9
    assert found["energy_update"] > 0.85
    others = {"diagonal", "low_rank", "orthogonal"} - {name}
    assert all(measured(y, fitted(other, y))["error_update"] > 0.2 for other in others)


def test_a_rank_too_small_leaves_what_does_not_fit():
    y = X + X @ RANK2
    found = measured(y, fitted("low_rank", y, rank=1))
    # What one rank-1 map for all tokens leaves at best; a map for each neighbourhood may turn its direction a little.
    s = torch.linalg.svdvals(X @ RANK2)
    floor = float((s[1:] ** 2).sum() / (s**2).sum())
    residual = fitted("low_rank", y, rank=1) - X @ RANK2
    share = float(residual.square().sum() / (X @ RANK2).square().sum())
    assert 0.4 * floor < share < 1.2 * floor
    assert found["cos_update"] < 0.95


@pytest.mark.parametrize("size", [20, 200])
def test_fewer_neighbours_than_dimensions_give_the_whole_polar_factor(size):
    x, y = normal(3, 7, size), normal(3, 7, size)
    q = normal(3, size)
    got = local_maps.orthogonal(q, x, y, 0.3)
    weight = 0.3 * x.square().sum((1, 2)) / size
    left, _, right = torch.linalg.svd(x.mT @ y + weight[:, None, None] * torch.eye(size, dtype=torch.float64))
    expected = (q[:, None] @ left @ right)[:, 0] - q
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close((q + got).norm(dim=-1), q.norm(dim=-1))


@pytest.mark.parametrize("epsilon", [0.1, 0.3])
def test_what_a_block_mixes_in_from_the_previous_token_is_the_residual(epsilon):
    before = X.roll(1, 0)
    mixed = epsilon * before @ ORTHOGONAL
    y = X * SCALES + mixed
    update = fitted("diagonal", y)
    residual = y - X - update
    size = residual.norm(dim=-1) / (X * SCALES).norm(dim=-1)
    assert float(size.mean()) == pytest.approx(
        epsilon * float((X.norm(dim=-1) / (X * SCALES).norm(dim=-1)).mean()), rel=0.1
    )
    cosine = torch.nn.functional.cosine_similarity(residual, mixed, dim=-1)
    assert float(cosine.mean()) >= 0.96


def test_the_wrong_class_looks_right_by_the_state_and_wrong_by_the_update():
    y = X + 0.1 * X @ ORTHOGONAL
    found = measured(y, fitted("diagonal", y))
    assert found["cos_state"] > 0.99
    assert found["cos_update"] < 0.6
    assert found["error_update"] > 0.8


def test_a_block_that_does_nothing_has_no_cosine_of_its_update():
    values, _, _ = per_token(X, X, torch.zeros_like(X))
    assert values["cos_state"].allclose(torch.ones(N, dtype=torch.float64))
    assert torch.isnan(values["cos_update"]).all() and torch.isnan(values["error_update"]).all()
    assert torch.isnan(values["energy_update"]).all() and torch.isnan(values["cos_state_residual"]).all()
    # Rounding of float32 is not an update either.
    rounded = X * (1 + 1e-8)
    assert torch.isnan(per_token(X, rounded, normal(N, D))[0]["cos_update"]).all()


def test_constant_activations_give_numbers_or_nan_and_no_warning():
    x, y = torch.zeros(N, D, dtype=torch.float64), torch.ones(N, D, dtype=torch.float64)
    for name in ("diagonal", "low_rank", "orthogonal"):
        assert (fitted(name, y, x=x) == 0).all()


def test_energies_are_of_the_subspace_that_holds_nine_tenths():
    predicted = torch.zeros(N, D, dtype=torch.float64)
    predicted[:, 0], predicted[::20, 1] = 1.0, 1.0
    y = X.clone()
    y[:, 0] += 3
    y[:, 5] += 4
    values, dims, spectrum = per_token(X, y, predicted)
    assert dims[1] == 1 and float(spectrum[0]) > 0.9
    # 9 / 25 of each update's square lie along the first axis, up to the little that the other direction tilts it.
    assert float(values["energy_update"].mean()) == pytest.approx(9 / 25, abs=0.01)


def test_global_maps_find_a_linear_map_and_only_the_network_a_bent_one():
    held = global_maps.kept_back(SEQUENCE)
    assert held.sum() == 120 and not held[:480].any()
    y = X + X @ RANK2 + 0.5
    predict, ridge = global_maps.linear(X, y, held)
    assert ridge == global_maps.LINEAR_RIDGES[0]
    assert (predict(X) - (y - X)).norm() / (y - X).norm() < 1e-5
    many, held_out = normal(4000, D), normal(200, D)
    bent = many + (many @ RANK2[:, :1]).abs() * torch.ones(D, dtype=torch.float64)
    wanted = (held_out @ RANK2[:, :1]).abs() * torch.ones(D, dtype=torch.float64)
    held = global_maps.kept_back(torch.arange(4000) // 40)

    def left(predict):
        return float((predict(held_out) - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())

    assert left(global_maps.linear(many, bent, held)[0]) > 0.9
    assert left(global_maps.mlp(many, bent, held, 0)) < 0.3
    mean = global_maps.constant(many, bent)(held_out)
    torch.testing.assert_close(mean, (bent - many).mean(0).expand(200, D))


def test_pure_noise_stops_the_network_before_it_learns_it():
    held = global_maps.kept_back(SEQUENCE)
    y = X + normal(N, D)
    predicted = global_maps.mlp(X, y, held, 0)(X)
    assert predicted.square().mean() < 0.1


def test_the_network_that_is_kept_is_the_best_and_not_the_last(monkeypatch):
    monkeypatch.setattr(global_maps, "_RATE", 1e-2)
    monkeypatch.setattr(global_maps, "_PATIENCE", 60)
    held = global_maps.kept_back(SEQUENCE)
    predicted = global_maps.mlp(X, X + normal(N, D), held, 0)(X)
    assert predicted.square().mean() < 0.1


def test_one_sequence_cannot_choose_a_penalty():
    with pytest.raises(ValueError, match="one sequence; give more"):
        global_maps.kept_back(torch.zeros(5, dtype=torch.int64))
