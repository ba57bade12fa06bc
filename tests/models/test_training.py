"""Oracles: a plain torch loop, closed forms (the schedule, an orthogonal update), and what was there before the run."""

from dataclasses import replace
from math import cos, pi

import numpy as np
import pytest
import torch
from tiny_training import CONFIG, TOKENS, TinyModel, same_weights, trained
from torch import nn

from strobe.models.training import TrainingConfig, cross_entropy, learning_rate_at, random_windows, train
from strobe.models.training.optimizers import make_optimizers, muon_parameters


def test_the_loop_is_a_plain_torch_loop(tmp_path):
    model, report = trained(tmp_path)
    plain = TinyModel()
    decayed = [p for n, p in plain.named_parameters() if p.ndim == 2 and n != "rates"]
    kept = [p for n, p in plain.named_parameters() if p.ndim < 2 or n == "rates"]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": kept, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    batches, losses, clipped = random_windows(TOKENS, CONFIG), [], 0
    for step in range(CONFIG.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, CONFIG)
        inputs, targets = batches(step)
        loss = nn.functional.cross_entropy(plain(inputs).transpose(1, 2), targets)
        optimizer.zero_grad()
        loss.backward()
        clipped += nn.utils.clip_grad_norm_(plain.parameters(), 0.3) > 0.3
        optimizer.step()
        losses.append(loss.item())
    assert clipped > 0, "the test must clip something"
    np.testing.assert_allclose(report.losses, losses, rtol=1e-5)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_the_schedule_is_warm_up_and_half_a_cosine():
    config = replace(CONFIG, steps=111, warmup=10, final_lr=0.2)
    assert learning_rate_at(0, config) == pytest.approx(0.001)
    assert learning_rate_at(9, config) == pytest.approx(0.01)
    for step in range(10, 111):
        expected = 0.01 * (0.2 + 0.8 * (1 + cos(pi * (step - 10) / 100)) / 2)
        assert learning_rate_at(step, config) == pytest.approx(expected, rel=1e-12)
    assert learning_rate_at(110, config) == pytest.approx(0.002)
    assert learning_rate_at(0, TrainingConfig(steps=1, batch_size=1, context=1, learning_rate=0.5)) == 0.5


def test_windows_are_a_function_of_seed_and_step():
    batches = random_windows(TOKENS, CONFIG)
    inputs, targets = batches(4)
    assert inputs.shape == targets.shape == (4, 10) and inputs.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    rows = {tuple(TOKENS[i : i + 11]) for i in range(490)}
    assert all((*i.tolist(), t.tolist()[-1]) in rows for i, t in zip(inputs, targets, strict=True))
    assert torch.equal(inputs, batches(4).inputs) and not torch.equal(inputs, batches(5).inputs)
    assert not torch.equal(inputs, random_windows(TOKENS, replace(CONFIG, seed=4))(4).inputs)
    # Twelve tokens hold two windows of eleven; both are drawn, the last token included.
    few = random_windows(np.arange(12), CONFIG)
    assert {int(i) for step in range(20) for i in few(step).inputs[:, 0]} == {0, 1}
    with pytest.raises(ValueError, match="found 10 tokens; shorten the context"):
        random_windows(np.arange(10), CONFIG)


def test_muon_has_the_hidden_matrices_and_its_update_is_orthogonal(tmp_path):
    model = TinyModel()
    assert muon_parameters(model, CONFIG.adamw_modules) == ["mlp.0.weight", "mlp.3.weight"]
    config = replace(CONFIG, steps=1, warmup=0, optimizer="muon", weight_decay=0.0, clip=None)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(model, random_windows(TOKENS, config), config, out_dir=tmp_path)
    twin, batch = TinyModel(), random_windows(TOKENS, config)(0)
    cross_entropy(twin(batch.inputs), batch.targets).backward()
    for name in ("mlp.0.weight", "mlp.3.weight"):
        left, values, right = torch.linalg.svd(twin.get_parameter(name).grad, full_matrices=False)
        # What the layer norm removes has no gradient: there the iteration, in bfloat16, amplifies rounding alone.
        clear = values > 0.01 * values.norm()
        assert clear.sum() >= 7
        # The iteration keeps the singular vectors, so it can be done on the values (Jordan 2024).
        expected = values / values.norm()
        for _ in range(5):
            expected = 3.4445 * expected - 4.775 * expected**3 + 2.0315 * expected**5
        downhill = (before[name] - model.get_parameter(name)).detach() / (0.01 * 0.2 * 16**0.5)
        found = left.T @ downhill @ right.T
        torch.testing.assert_close(found[clear][:, clear], torch.diag(expected[clear]), rtol=0, atol=0.06)
    # AdamW's first update is the sign of the gradient times the learning rate.
    update = (model.unembed.weight - before["unembed.weight"]).detach().abs()
    torch.testing.assert_close(update, torch.full_like(update, 0.01), rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match=r"no hidden nn\.Linear outside"):
        make_optimizers(nn.Embedding(3, 3), config)


def test_autocast_runs_in_bfloat16_and_keeps_the_weights(tmp_path):
    model, seen = TinyModel(), set()
    model.mlp[0].register_forward_hook(lambda module, args, output: seen.add(output.dtype))
    config = replace(CONFIG, autocast="bfloat16")
    report = train(model, random_windows(TOKENS, config), config, out_dir=tmp_path)
    assert seen == {torch.bfloat16} and {p.dtype for p in model.parameters()} == {torch.float32}
    exact = trained(tmp_path / "exact")[1].losses
    assert report.losses != exact
    np.testing.assert_allclose(report.losses, exact, rtol=0.02)


def test_evaluations_are_at_the_steps_asked_for_and_in_evaluation_mode(tmp_path):
    modes = []

    def evaluate(model):
        modes.append((model.training, torch.is_grad_enabled()))
        return {"bits": float(len(modes))}

    def evaluate_and_draw(model):
        torch.rand(1)
        return evaluate(model)

    model, report = trained(tmp_path / "a", replace(CONFIG, eval_every=5), dropout=0.2, evaluate=evaluate_and_draw)
    assert same_weights(model, trained(tmp_path / "b", dropout=0.2)[0]), "an evaluation moved the training"
    assert report.evaluations == ((5, {"bits": 1.0}), (10, {"bits": 2.0}), (12, {"bits": 3.0}))
    assert modes == [(False, False)] * 3
    assert report.tokens == 12 * 4 * 10 and report.tokens_per_second == report.tokens / report.seconds


def test_the_surroundings_are_put_back(tmp_path):
    model = TinyModel().eval()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    threads = torch.get_num_threads()
    config = replace(CONFIG, threads=2 if threads == 1 else 1)
    inside = []
    train(
        model,
        random_windows(TOKENS, config),
        config,
        out_dir=tmp_path,
        on_progress=lambda *_: inside.append((torch.get_num_threads(), model.training)),
    )
    assert set(inside) == {(config.threads, True)}
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads and not model.training
