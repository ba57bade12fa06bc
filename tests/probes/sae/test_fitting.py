"""Oracle: a planted sparse dictionary that has to come out; dense autograd; for resuming, a run that did not stop."""

import pytest
import torch
from torch.nn import functional as F

from strobe.probes.sae import SaeConfig, train_sae, unfinished_sae
from strobe.probes.sae.fitting import DictionaryFit
from strobe.probes.sae.objective import Weights, loss_of
from strobe.probes.sae.sparse import kept_from, top_indices

D_IN, ATOMS, ACTIVE = 24, 32, 3
FEATURES = 64


def planted(step: int, dictionary: torch.Tensor) -> torch.Tensor:
    """Sums of three of the dictionary's rows, far from the origin and of no particular scale."""
    generator = torch.Generator().manual_seed(step)
    index = torch.rand(512, len(dictionary), generator=generator).topk(ACTIVE, dim=1).indices
    values = torch.rand(512, ACTIVE, generator=generator) + 0.5
    return 30 * F.embedding_bag(index, dictionary, per_sample_weights=values, mode="sum") + 20


def rows(seed: int = 11, width: int = D_IN) -> torch.Tensor:
    return F.normalize(torch.randn(ATOMS, width, generator=torch.Generator().manual_seed(seed)), dim=1)


@pytest.mark.parametrize(
    ("kind", "sparsity", "least"),
    [("topk", 0.0, 0.98), ("batchtopk", 0.0, 0.98), ("jumprelu", 0.05, 0.97), ("relu", 0.1, 0.97)],
)
def test_a_planted_dictionary_is_recovered_in_the_units_of_the_data(kind, sparsity, least):
    truth = rows()
    batches = [planted(step, truth) for step in range(100)]
    config = SaeConfig(
        kind=kind, d_sae=FEATURES, k=ACTIVE, sparsity=sparsity, tokens=512 * 400, batch=512, learning_rate=1e-2,
        dead_after=8000, bandwidth=1.0, first_threshold=1.0,
    )  # fmt: skip
    fit = DictionaryFit(lambda step: batches[step % 100], config, (D_IN,))
    start = float((truth @ fit.weights()["W_dec"].T).max(1).values.mean())
    while not fit.done:
        fit.advance()
    w = fit.weights()
    found = float((truth @ w["W_dec"].T).max(1).values.mean())
    assert found > least > start + 0.3, f"mean max cosine {found:.3f}, before training {start:.3f}"
    torch.testing.assert_close(w["W_dec"].norm(dim=1), torch.ones(FEATURES), rtol=1e-5, atol=1e-5)
    x = planted(10**6, truth)
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    f = torch.relu(pre) * (pre > w["threshold"]) if "threshold" in w else torch.relu(pre)
    if kind == "topk":
        f = f * (f >= f.topk(ACTIVE, dim=1).values[:, -1:])
    unexplained = float((x - w["b_dec"] - f @ w["W_dec"]).square().sum() / (x - x.mean(0)).square().sum())
    assert unexplained < (0.3 if kind == "relu" else 0.1)
    if kind != "relu":
        assert 0.6 * ACTIVE < float((f > 0).sum(1).float().mean()) < 1.6 * ACTIVE
    assert [row[0] for row in fit.history] == [512.0 * n for n in range(10, 401, 10)]


def test_rank_one_atoms_of_planted_matrices_are_recovered():
    generator = torch.Generator().manual_seed(3)
    left, right = (F.normalize(torch.randn(ATOMS, n, generator=generator), dim=1) for n in (6, 5))
    truth = torch.einsum("fk,fv->fkv", left, right).flatten(1)
    batches = [planted(step, truth) for step in range(100)]
    config = SaeConfig(
        d_sae=FEATURES, k=ACTIVE, atoms="rank1", tokens=512 * 300, batch=512, learning_rate=2e-2, dead_after=8000
    )
    fit = DictionaryFit(lambda step: batches[step % 100], config, (6, 5))
    while not fit.done:
        fit.advance()
    found = (truth @ fit.weights()["W_dec"].T).max(1).values
    assert float(found.mean()) > 0.9
    matrices = fit.weights()["W_dec"].unflatten(1, (6, 5))
    assert float(torch.linalg.svdvals(matrices)[:, 1:].max()) < 1e-4
    with pytest.raises(ValueError, match=r"rank-1 atoms .* need a matrix"):
        DictionaryFit(lambda step: planted(step, truth), config, (30,))


def test_sparse_gradients_are_those_of_the_dense_operations_and_dead_features_are_pulled_by_the_error():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(17, 9, generator=generator, dtype=torch.float64)
    start = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((9, 13), (13,), (13, 9), (9,))]
    config = SaeConfig(d_sae=13, k=4, tokens=17, batch=17, aux_k=2)
    dead = torch.zeros(13, dtype=torch.bool)
    dead[[2, 5, 6]] = True
    given = [t.clone().requires_grad_() for t in start]
    loss_of(x, Weights(*given, None), config, dead).total.backward()
    dense = [t.clone().requires_grad_() for t in start]
    pre = (x - dense[3]) @ dense[0] + dense[1]
    kept = pre >= pre.topk(4, dim=1).values[:, -1:]
    left = x - dense[3] - torch.relu(pre * kept) @ dense[2]
    target, which = left.detach(), [2, 5, 6]
    of_dead = (x - dense[3]).detach() @ dense[0][:, which] + dense[1][which]
    of_dead = torch.relu(of_dead * (of_dead >= of_dead.topk(2, dim=1).values[:, -1:]))
    auxiliary = (target - of_dead @ dense[2][which]).square().sum() / target.square().sum()
    (left.square().mean() + config.aux * auxiliary).backward()
    for name, a, b in zip(("W_enc", "b_enc", "W_dec", "b_dec"), given, dense, strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda m, n=name: f"{n}: {m}")
    assert dense[0].grad is not None and dense[0].grad[:, which].abs().sum() > 0


def test_the_threshold_of_jumprelu_has_the_gradient_of_the_smoothed_expectation():
    """Equation 11: the estimator's mean is the derivative of the expected loss, here of a uniform density."""
    generator = torch.Generator().manual_seed(1)
    pre = 4 * torch.rand(400_000, 1, generator=generator, dtype=torch.float64)
    log_threshold = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    w = Weights(
        torch.eye(1).double(), torch.zeros(1).double(), torch.eye(1).double(), torch.zeros(1).double(), log_threshold
    )
    config = SaeConfig(kind="jumprelu", d_sae=1, k=1, sparsity=0.3, bandwidth=0.1, tokens=1, batch=1)
    loss_of(pre, w, config, torch.zeros(1, dtype=torch.bool)).total.backward()
    # Loss(t) = (1/4) int_0^t p^2 dp + 0.3 (1 - t/4), so that dLoss/dlog t = t (t^2 - 0.3) / 4; the kernel blurs t^2.
    t = log_threshold.detach().exp()
    expected = t * (t * t - 0.3) / 4
    assert log_threshold.grad is not None
    torch.testing.assert_close(log_threshold.grad, expected, rtol=0.05, atol=0)


@pytest.mark.parametrize("k", [1, 4, 13])
def test_the_largest_are_found_as_torch_finds_them(k):
    pre = torch.randn(50, 13, generator=torch.Generator().manual_seed(k))
    assert torch.equal(top_indices(pre, k).sort(1).values, pre.topk(k, dim=1).indices.sort(1).values)
    flat = pre.flatten().topk(50 * k).values.min().clamp(min=0)
    assert torch.equal(kept_from(pre, 50 * k), flat)


class Stop(Exception):
    """What a cancelled job raises."""


def test_a_run_that_was_stopped_goes_on_to_the_very_same_numbers_and_keeps_what_it_had(native, tmp_path):
    tokens = torch.randint(0, 40, (900,), generator=torch.Generator().manual_seed(0))
    # So wide that some features are dead when it stops: how long they have been silent must be kept too.
    config = SaeConfig(d_sae=256, k=4, tokens=64 * 30, batch=64, buffer=200, context=16, dead_after=300)
    name = "blocks.1.hook_resid_post"
    whole, report = train_sae(native, tokens, name, config=config)
    assert report.finished and report.control > 0 and whole.info["vectors_seen"] == 64 * 30

    def stop(done, total, what):
        if done == 15:
            raise Stop

    with pytest.raises(Stop):
        train_sae(native, tokens, name, config=config, run=tmp_path, on_progress=stop)
    half = unfinished_sae(native, tmp_path)
    assert half.info["vectors_seen"] == 64 * 15 and not half.info["finished"]
    assert half.weights_hash() != whole.weights_hash()
    again, _ = train_sae(native, tokens, name, config=config, run=tmp_path)
    assert again.weights_hash() == whole.weights_hash()
    for changed, said in (({"config": SaeConfig(d_sae=32, k=5, tokens=1920, batch=64)}, "k=4 .now 5"), ({}, "data=")):
        with pytest.raises(ValueError, match=said):
            train_sae(native, tokens if changed else tokens[1:], name, **{"config": config, **changed}, run=tmp_path)


def test_every_vector_of_a_buffer_is_handed_out_once_and_no_first_position(native):
    from strobe.probes.lens.token_rows import token_rows
    from strobe.probes.sae import Site
    from strobe.probes.sae.stream import ActivationStream

    tokens = torch.arange(40)[None].expand(3, -1)[:, :9]
    config = SaeConfig(d_sae=8, k=2, tokens=64, batch=8, buffer=60, skip=2)
    site = Site("blocks.0.hook_resid_pre")
    stream = ActivationStream(native, site, token_rows(native, tokens, None), config)
    seen = torch.cat([stream(i) for i in range(7)])
    # 9 rows of 7 positions are 63 vectors, 7 batches of 8; the embedding tells which token each was.
    which = (seen @ native.embed.weight.T - 0.5 * native.embed.weight.square().sum(1)).argmax(1)
    counts = which.bincount(minlength=10)
    assert counts[:2].sum() == 0 and counts[2:9].max() <= 9 and counts.sum() == 56 and counts[2:9].min() > 0
    assert not torch.equal(which[:7].sort().values, which[:7])
    assert torch.equal(stream(2), ActivationStream(native, site, token_rows(native, tokens, None), config)(2))


@pytest.mark.parametrize("name", ["blocks.0.mixer.hook_state", "blocks.1.mixer.hook_state", "blocks.2.hook_attn_out"])
def test_any_place_of_a_model_can_be_trained_on(native, name):
    tokens = torch.randint(0, 40, (400,), generator=torch.Generator().manual_seed(0))
    matrix = name.startswith("blocks.0")
    config = SaeConfig(
        d_sae=16, k=3, tokens=64, batch=32, buffer=64, context=16, state_every=3, atoms="rank1" if matrix else "vector"
    )
    sae, _ = train_sae(native, tokens, name, head=1 if matrix else None, config=config)
    sae.check(native)
    assert sae.d_in == {"0": 20, "1": 12, "2": 16}[name[7]]
    assert sae.state_shape == {"0": (5, 4), "1": (12,), "2": None}[name[7]]


def test_a_hugging_face_model_trains_and_keeps_its_mode(huggingface):
    tokens = torch.randint(3, 61, (400,), generator=torch.Generator().manual_seed(0))
    config = SaeConfig(d_sae=16, k=3, tokens=64, batch=32, buffer=64, context=16)
    sae, report = train_sae(huggingface, tokens, "blocks.1.hook_resid_post", config=config)
    sae.check(huggingface)
    assert report.provenance.model == huggingface.model_name and not huggingface.training


def test_bad_settings_and_vectors_that_do_not_vary_are_refused(native):
    from strobe.core.errors import HookError

    with pytest.raises(ValueError, match="all the same"):
        DictionaryFit(lambda step: torch.ones(8, 4), SaeConfig(d_sae=8, k=2, tokens=8, batch=8), (4,)).advance()
    with pytest.raises(HookError, match=r"did you mean 'blocks.0.hook_resid_post'"):
        train_sae(native, torch.arange(30), "blocks.0.hook_resid_pots")
    with pytest.raises(ValueError, match="live carry; give a captured field"):
        train_sae(native, torch.arange(30), "blocks.0.mixer.hook_carry")
    with pytest.raises(IndexError, match=r"head 2 .* give 0 to 1"):
        train_sae(native, torch.arange(30), "blocks.0.mixer.hook_state", head=2)
    for bad in ({"k": 0}, {"tokens": 10}, {"skip": 200}, {"batch": 0}):
        with pytest.raises(ValueError, match=r"asked for|left out"):
            SaeConfig(**bad)
