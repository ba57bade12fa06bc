"""Oracle: models whose best lens is known (identity layers, rotations), and the loss's own zero.

Belrose et al. 2023: an untrained tuned lens is the logit lens; its loss is KL(final || lens) and is zero at the model's
own output; a rotation is undone by an affine translator and not by the logit lens.
"""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from strobe.core import CheckpointError
from strobe.probes.lens import LogitLens, TunedLens, UndertrainedLensWarning, model_readout
from strobe.probes.lens.fitting import Recipe, layer_losses
from strobe.probes.lens.token_rows import fit_and_held_out, token_rows


def fitted(model: Any, stream: Any, **options: Any) -> TunedLens:
    return TunedLens.fit(model, stream, **{"steps": 20, "batch": 4, "context": 16, "learning_rate": 1e-3, **options})


def test_identity_layers_have_an_untrained_lens_without_error(toy: Any) -> None:
    model = toy(torch.randn(30, 8), [lambda x: x] * 3, torch.randn(30, 8), nn.LayerNorm(8))
    for lens in (TunedLens.untrained(model), LogitLens()):
        found = lens.trajectory(model, torch.randint(0, 30, (25,)))
        assert (found.kl == 0).all()
        assert (found.final_rank == 1).all()


def test_rotations_are_undone_by_the_tuned_lens_and_not_by_the_logit_lens(rotating: Any) -> None:
    tokens = torch.randint(0, 50, (64, 16))
    lens = TunedLens.fit(rotating, tokens, steps=600, batch=16, learning_rate=1e-2, weight_decay=0.0)
    assert lens.report is not None
    assert (lens.report.logit_kl > 1.0).all()
    assert (lens.report.tuned_kl < 0.01).all()
    assert (lens.report.tuned_kl < 0.01 * lens.report.logit_kl).all()
    assert not lens.report.undertrained.any()
    # The constant lens is no better than the spread of the predictions; the tuned lens has to beat it by far.
    assert lens.report.control_kl > 0.1


def test_the_loss_and_its_gradient_are_zero_at_the_lenss_own_output(native: Any) -> None:
    read = model_readout(native)
    h, weight, bias = torch.randn(15, 16), 0.1 * torch.randn(16, 16), torch.randn(16)
    log_p = read(h + h @ weight.T + bias).log_softmax(-1).detach()
    # The second layer is given another bias: there it is not zero.
    w, b = weight.repeat(2, 1, 1).requires_grad_(), torch.stack([bias, bias + 0.3 * torch.randn(16)]).requires_grad_()
    losses = layer_losses(read, torch.stack([h, h]), w, b, log_p)
    losses.sum().backward()
    assert w.grad is not None and b.grad is not None
    assert float(losses[0].detach().abs()) < 1e-6 and float(losses[1].detach()) > 1e-3
    assert float(w.grad[0].abs().max()) < 1e-6 and float(b.grad[0].abs().max()) < 1e-6
    assert float(w.grad[1].abs().max()) > 1e-3


def test_the_loss_is_kl_from_the_final_prediction_to_the_lens(native: Any) -> None:
    read, h = model_readout(native), torch.randn(1, 7, 16)
    log_p = torch.randn(7, 20).log_softmax(-1)
    q = torch.softmax(read(h[0]).double(), -1).numpy()
    p = np.exp(log_p.double().numpy())
    expected = np.mean([sum(a * np.log(a / b) for a, b in zip(*rows)) for rows in zip(p, q)])
    found = layer_losses(read, h, torch.zeros(1, 16, 16), torch.zeros(1, 16), log_p)
    assert float(found[0]) == pytest.approx(expected, rel=1e-5)


def test_where_a_fit_is_ended_the_lens_of_that_step_is_given(native: Any, stream: Any) -> None:
    class Ended(Exception):
        pass

    def progress(done: int, total: int, message: str) -> None:
        if done == 6:
            raise Ended

    kept: list[TunedLens] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndertrainedLensWarning)
        with pytest.raises(Ended):
            fitted(native, stream, on_progress=progress, partial=kept.append)
        whole, (so_far,) = fitted(native, stream), kept
    assert so_far.report is not None and whole.report is not None
    assert so_far.report.steps[-1] == 6 and whole.report.steps[-1] == 20
    # The optimizer's first steps are the same: what was learned at each layer lies between nothing and the whole.
    mine, all_of_it = so_far.translators.weight.flatten(1), whole.translators.weight.flatten(1)
    assert (mine.norm(dim=1) > 0).all() and (mine.norm(dim=1) < all_of_it.norm(dim=1)).all()
    assert (torch.cosine_similarity(mine, all_of_it, 1) > 0.3).all()
    assert so_far.mean_probabilities is not None
    assert float(so_far.mean_probabilities.sum()) == pytest.approx(1.0)


def test_an_activation_that_says_nothing_gets_the_constant_lenss_kl(toy: Any) -> None:
    # The model answers for the token before, which resid[0] does not have: for a lens there is only the average to
    # learn.
    embedding, unembedding = torch.randn(12, 16), torch.randn(12, 16) / 4
    model = toy(embedding, [lambda x: torch.roll(x, 1, 1)], unembedding)
    lens = TunedLens.fit(model, torch.randint(0, 12, (256, 16)), steps=200, batch=32, learning_rate=1e-2)
    assert lens.report is not None
    assert float(lens.report.tuned_kl[0]) == pytest.approx(lens.report.control_kl, rel=0.05)
    assert float(lens.report.logit_kl[0]) > 1.5 * lens.report.control_kl


def test_a_native_recurrent_model_gets_a_better_lens_and_is_left_alone(native: Any, stream: Any) -> None:
    before = native.weights_hash()
    native.train()
    lens = fitted(native, stream, steps=100, learning_rate=1e-2)
    assert lens.report is not None
    assert (lens.report.tuned_kl < 0.5 * lens.report.logit_kl).all()
    assert native.weights_hash() == before and native.training
    assert all(p.grad is None and p.requires_grad for p in native.parameters())
    assert lens.report.provenance.backend == {"blocks.0.mixer": "chunked"}


def test_the_sgd_recipe_of_the_authors_learns_too(small: Any, stream: Any) -> None:
    lens = fitted(small, stream, optimizer="sgd", learning_rate=None, steps=100, weight_decay=1e-3)
    assert lens.report is not None
    assert (lens.report.tuned_kl < lens.report.logit_kl).all()
    optimizer, rate = Recipe(optimizer="sgd").make([nn.Parameter(torch.zeros(1))])
    group = optimizer.param_groups[0]
    assert (rate, group["momentum"], group["nesterov"], group["weight_decay"]) == (0.1, 0.9, True, 1e-3)


def test_sgd_clips_the_gradient_of_each_layer_to_one(toy: Any) -> None:
    # Large logits at layer 0, whose gradient is then long; layer 1 is the output already and has none.
    model = toy(torch.randn(20, 8), [lambda x: -x, lambda x: x], 10 * torch.randn(20, 8))
    tokens = torch.randint(0, 20, (40, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndertrainedLensWarning)
        lens = TunedLens.fit(model, tokens, steps=1, batch=4, optimizer="sgd", weight_decay=0.0)
    w, b = lens.translators
    # Nesterov's first step is the rate times 1 + 0.9 of the gradient.
    assert float(torch.cat([w[0].flatten(), b[0]]).norm()) == pytest.approx(0.1 * 1.9, rel=1e-5)
    assert float(w[1].norm()) < 1e-6


def test_weight_decay_pulls_to_the_identity(small: Any, stream: Any) -> None:
    free, held = (fitted(small, stream, weight_decay=decay, steps=60, learning_rate=1e-2) for decay in (0.0, 20.0))
    assert held.translators.weight.norm() < 0.5 * free.translators.weight.norm()


def test_layers_do_not_learn_from_each_other(toy: Any) -> None:
    # Same first block, another second: the translator of layer 1 of one is that of layer 1 of the other if only h and
    # the final prediction of its own layer count. Here the last residual is the same in both.
    embedding, unembedding = torch.randn(20, 8), torch.randn(20, 8) / 2
    double, half = (lambda x: 2 * x), (lambda x: x / 2)
    one = toy(embedding, [double, half], unembedding)
    two = toy(embedding, [lambda x: -x, lambda x: -x], unembedding)
    tokens = torch.randint(0, 20, (40, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndertrainedLensWarning)
        a, b = (TunedLens.fit(m, tokens, steps=15, batch=4, optimizer="sgd", learning_rate=0.01) for m in (one, two))
    assert torch.equal(a.translators.weight[0], b.translators.weight[0])
    assert not torch.equal(a.translators.weight[1], b.translators.weight[1])


def test_the_same_seed_gives_the_same_lens_and_another_another(small: Any, stream: Any) -> None:
    a, b, c = (fitted(small, stream, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(a.translators.weight, b.translators.weight)
    assert not torch.equal(a.translators.weight, c.translators.weight)


def test_without_bias_there_is_none(small: Any, stream: Any) -> None:
    lens = fitted(small, stream, bias=False)
    assert not lens.translators.bias.any() and lens.translators.weight.any()


def test_a_lens_worse_than_the_logit_lens_is_called_undertrained(toy: Any) -> None:
    # Identity layers need no translator, so a rate that throws the first step far can only make it worse.
    model = toy(torch.randn(30, 8), [lambda x: x] * 2, torch.randn(30, 8), nn.LayerNorm(8))
    broken = [lambda x: x + 0.01 * torch.randn(8), lambda x: x]
    noisy = toy(torch.randn(30, 8), broken, model.unembed.weight, nn.LayerNorm(8))
    with pytest.warns(UndertrainedLensWarning, match="worse than the logit lens at layer 0"):
        lens = TunedLens.fit(noisy, torch.randint(0, 30, (40, 8)), steps=3, batch=4, learning_rate=1.0)
    assert lens.report is not None and lens.report.undertrained[0]


def test_progress_counts_the_steps_and_what_it_raises_ends_the_fit(small: Any, stream: Any) -> None:
    seen: list[tuple[int, int]] = []

    def tick(done: int, total: int, what: str) -> None:
        assert "lens" in what
        seen.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(small, stream, steps=5, on_progress=tick)
    assert seen == [(1, 5), (2, 5), (3, 5)]
    assert all(p.grad is None for p in small.parameters())


def test_a_fit_that_diverges_says_where(small: Any, stream: Any) -> None:
    with pytest.raises(FloatingPointError, match="layer 0 is not finite at step 1; give a smaller learning_rate"):
        fitted(small, stream, optimizer="sgd", learning_rate=float("inf"))


def test_held_out_tokens_are_not_fitted_on() -> None:
    class Model:
        model_name = "m"

        class cfg:
            d_vocab = 1000

    ids = np.arange(1000)
    fit, kept = fit_and_held_out(Model(), ids, None, 20)
    drawn = torch.cat([fit.draw(8, 0, step) for step in range(50)])
    assert set(drawn.flatten().tolist()).isdisjoint(kept.in_order().flatten().tolist())
    assert kept.in_order().numel() == 100 and drawn.shape == (400, 20)
    assert (drawn[:, 1:] - drawn[:, :-1] == 1).all()
    fit, kept = fit_and_held_out(Model(), ids.reshape(50, 20), None, None)
    drawn = torch.cat([fit.draw(8, 0, step) for step in range(50)])
    assert set(drawn.flatten().tolist()) | set(kept.in_order().flatten().tolist()) == set(range(1000))
    assert set(drawn.flatten().tolist()).isdisjoint(kept.in_order().flatten().tolist())


def test_a_corpus_is_fitted_on_train_and_judged_on_valid(small: Any) -> None:
    asked: list[str] = []

    class Corpus:
        def tokens(self, split: str) -> np.ndarray:
            asked.append(split)
            return np.random.default_rng(0).integers(0, 20, 300).astype(np.uint16)

    fitted(small, Corpus(), steps=2)
    assert asked == ["train", "valid"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.arange(10.0), "token ids were wanted"),
        (np.arange(3), "rows need 2 tokens or more"),
        (np.full(100, 20), "20 were given; small has 0 to 19"),
        (np.zeros((1, 20), int), "found 1 row; give more"),
    ],
)
def test_tokens_that_cannot_be_used_are_refused(small: Any, data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(small, data)


def test_a_saved_lens_comes_back_whole(small: Any, stream: Any, tmp_path: Any) -> None:
    lens = fitted(small, stream)
    for path in (lens.save(tmp_path / "a.safetensors"), lens.save(tmp_path / "folder")):
        again = TunedLens.load(path, small)
        assert torch.equal(again.translators.weight, lens.translators.weight)
        assert torch.equal(again.translators.bias, lens.translators.bias)
        assert again.mean_probabilities is not None and lens.mean_probabilities is not None
        assert torch.equal(again.mean_probabilities, lens.mean_probabilities)
        assert again.report == lens.report
    assert (tmp_path / "folder" / "tuned_lens.safetensors").is_file()
    assert torch.equal(TunedLens.load(tmp_path / "folder", small).translators.bias, lens.translators.bias)


def test_a_lens_of_another_model_is_refused(small: Any, stream: Any, tmp_path: Any) -> None:
    lens = fitted(small, stream)
    path = lens.save(tmp_path / "lens.safetensors")
    ours = small.weights_hash()[:12]
    with torch.no_grad():
        small.unembed.weight[0, 0] += 1
    theirs = small.weights_hash()[:12]
    for use in (
        lambda: TunedLens.load(path, small),
        lambda: lens.trajectory(small, stream[:5]),
        lambda: lens.evaluate(small, stream),
    ):
        with pytest.raises(ValueError, match=rf"{ours}.*was to be used on small, whose weights.*{theirs}.*fit a lens"):
            use()


def test_a_file_that_is_no_lens_is_refused(small: Any, stream: Any, tmp_path: Any) -> None:
    with pytest.raises(CheckpointError, match="is not there; save one first"):
        TunedLens.load(tmp_path / "none.safetensors", small)
    lens = fitted(small, stream)
    whole = lens.save(tmp_path / "lens.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        TunedLens.load(tmp_path / "cut.safetensors", small)
    assert lens.report is not None
    lens.report.save(tmp_path / "report.safetensors")
    with pytest.raises(CheckpointError, match=r"give a file that TunedLens\.save wrote"):
        TunedLens.load(tmp_path / "report.safetensors", small)


def test_the_report_can_be_looked_at(small: Any, stream: Any, tmp_path: Any) -> None:
    report = fitted(small, stream).report
    assert report is not None
    assert report.steps.tolist() == [10, 20] and report.training_kl.shape == (2, 2)
    assert len(report.to_frame()) == 2 and "control: constant lens" in report.summary()
    figure = report.figure()
    assert [t.name for t in figure.data] == ["tuned lens", "logit lens", "control (constant lens)"]
    assert np.allclose(figure.data[0].y, report.tuned_kl)
    assert "nats" in figure.layout.yaxis.title.text
    assert len(report.training_figure().data) == 2
    report.save(tmp_path / "r.safetensors")
    assert type(report).load(tmp_path / "r.safetensors") == report


def test_rows_are_cut_in_order() -> None:
    class Model:
        model_name = "m"

        class cfg:
            d_vocab = 100

    rows = token_rows(Model(), np.arange(50), 16)
    assert rows.in_order().tolist() == np.arange(48).reshape(3, 16).tolist()
    assert rows.in_order(20).shape == (1, 16) and rows.n_tokens == 50
