"""Oracles: a plain torch loop, closed forms (schedule, entropy of a chain, orthogonal update), and a real SIGKILL."""

import os
import pickle
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from math import cos, log, pi
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from strobe.models.training import (
    CHECKPOINT_FILE,
    Batch,
    NonFiniteError,
    TrainingConfig,
    cross_entropy,
    evaluate_bits_per_byte,
    held_out_nats_per_token,
    learning_rate_at,
    mean_squared_error,
    random_windows,
    train,
)
from strobe.models.training.optimizers import make_optimizers, muon_parameters

VOCAB = 7


class TinyModel(nn.Module):
    """A GRU language model with every kind of parameter a run has to treat differently, and dropout, which draws."""

    def __init__(self, seed: int = 0, dropout: float = 0.0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(VOCAB, 8)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 8))
        self.norm = nn.LayerNorm(8)
        self.rates = nn.Parameter(torch.rand(2, 8))
        self.rates._no_weight_decay = True
        self.unembed = nn.Linear(8, VOCAB)

    def forward(self, tokens):
        x = self.embed(tokens)
        x = x + self.gru(x)[0] * self.rates.sum(0).sigmoid()
        return self.unembed(self.norm(x + self.mlp(x)))


TOKENS = np.random.default_rng(0).integers(VOCAB, size=500).astype(np.uint16)
CONFIG = TrainingConfig(
    steps=12, batch_size=4, context=10, learning_rate=0.01, warmup=3, checkpoint_every=5, clip=0.3, seed=3, threads=1
)


def _run(out_dir: Path, config: TrainingConfig = CONFIG, *, dropout: float = 0.0, **options):
    model = TinyModel(dropout=dropout)
    return model, train(model, random_windows(TOKENS, config), config, out_dir=out_dir, **options)


def _same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items())


KILLED = replace(CONFIG, optimizer="muon", eval_every=4)


def _killed_child(out_dir: Path, when: str) -> None:
    """Run in a child process: train, and die by SIGKILL at update 8, or half-way through writing a checkpoint."""

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    if when == "writing":
        save = torch.save

        def half_of_the_second(state, path):
            if state["progress"]["step"] == 5:
                return save(state, path)
            Path(path).write_bytes(b"PK half")
            return die()

        torch.save = half_of_the_second
    _run(out_dir, KILLED, dropout=0.2, on_progress=lambda done, *_: die() if done == 8 and when == "updating" else None)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is POSIX")
def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    import strobe

    environment = {**os.environ, "PYTHONPATH": str(Path(strobe.__file__).parents[1])}
    with ExitStack() as stack:
        children = {
            when: stack.enter_context(
                subprocess.Popen([sys.executable, __file__, str(tmp_path / when), when], env=environment)
            )
            for when in ("updating", "writing")
        }
        whole, uninterrupted = _run(tmp_path / "whole", KILLED, dropout=0.2)
    assert uninterrupted.resumed_from is None and len(uninterrupted.losses) == KILLED.steps
    for when, child in children.items():
        assert child.returncode == -signal.SIGKILL
        resumed, report = _run(tmp_path / when, KILLED, dropout=0.2)
        assert report.resumed_from == 5 and report.losses == uninterrupted.losses
        assert _same(resumed, whole)


def test_a_cancelled_run_keeps_its_work_and_resumes_to_the_same_bits(tmp_path):
    class Cancelled(Exception):
        pass

    def cancel_at_7(done, total, message):
        assert total == 12 and "loss" in message and "tokens/s" in message
        if done == 7:
            raise Cancelled

    with pytest.raises(Cancelled):
        _run(tmp_path / "a", dropout=0.2, on_progress=cancel_at_7)
    seen = []
    resumed, report = _run(tmp_path / "a", dropout=0.2, on_progress=lambda done, *_: seen.append(done))
    assert report.resumed_from == 7 and seen == [8, 9, 10, 11, 12]
    assert _same(resumed, _run(tmp_path / "b", dropout=0.2)[0])


def test_the_loop_is_a_plain_torch_loop(tmp_path):
    model, report = _run(tmp_path)
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


def test_a_markov_chain_is_learned_to_its_entropy(tmp_path):
    rng = np.random.default_rng(1)
    transition = rng.dirichlet(np.full(VOCAB, 0.3), size=VOCAB)
    chain = [0]
    for u in rng.random(20_000):
        chain.append(min(int(np.searchsorted(transition[chain[-1]].cumsum(), u)), VOCAB - 1))
    tokens = np.array(chain, dtype=np.uint16)
    config = TrainingConfig(steps=300, batch_size=16, context=16, learning_rate=0.03, warmup=10, weight_decay=0.0)
    model = nn.Embedding(VOCAB, VOCAB)
    train(model, random_windows(tokens[:15_000], config), config, out_dir=tmp_path)
    held_out = tokens[15_000:]
    true = -np.log(transition[held_out[:-1], held_out[1:]]).mean()
    found, _ = held_out_nats_per_token(model, held_out, context=100)
    # What a table of 49 estimated from 15,000 tokens loses is 42 / (2 * 15,000) = 0.0014 nats.
    assert abs(found - true) < 0.02
    untrained, _ = held_out_nats_per_token(nn.Embedding(VOCAB, VOCAB), held_out, context=100)
    assert untrained > true + 0.5


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


def test_bits_per_byte_of_a_uniform_model():
    class Uniform(nn.Module):
        def forward(self, tokens):
            return torch.zeros(*tokens.shape, VOCAB)

    found = evaluate_bits_per_byte(Uniform(), TOKENS, n_bytes=1250, context=64)
    np.testing.assert_allclose(found, np.log2(VOCAB) * 500 / 1250, rtol=1e-6)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_evaluation_scores_every_token_of_a_window_but_the_first(batch):
    model = TinyModel(dropout=0.5)
    nats = []
    for start in range(0, 500, 64):
        window = torch.from_numpy(TOKENS[start : start + 64].astype(np.int64))[None]
        model.eval()
        with torch.no_grad():
            log_p = model.double()(window).log_softmax(-1)[0]
        nats += [-log_p[i - 1, window[0, i]].item() for i in range(1, window.shape[1])]
    model.float().train()
    found, n_scored = held_out_nats_per_token(model, TOKENS, 64, batch)
    assert n_scored == len(nats) == 492 and model.training
    np.testing.assert_allclose(found, np.mean(nats), rtol=1e-5)
    bits = evaluate_bits_per_byte(model, TOKENS, 1250, 64, batch)
    np.testing.assert_allclose(bits, np.mean(nats) * 500 / 1250 / log(2), rtol=1e-5)
    with pytest.raises(ValueError, match="give at least two of each"):
        held_out_nats_per_token(model, TOKENS, 1)


def test_ignored_targets_are_not_scored():
    logits = torch.randn(2, 3, VOCAB, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, -100, -100], [-100, 2, -100]])
    log_p = logits.log_softmax(-1)
    torch.testing.assert_close(cross_entropy(logits, targets), -(log_p[0, 0, 1] + log_p[1, 1, 2]) / 2)


def test_real_valued_targets(tmp_path):
    """A linear map is found by mean squared error."""
    config = TrainingConfig(steps=200, batch_size=8, context=4, learning_rate=0.05, weight_decay=0.0)
    target = torch.tensor([[1.0, -2.0], [0.5, 3.0]])

    def batches(step):
        inputs = torch.randn(8, 4, 2, generator=torch.Generator().manual_seed(step))
        return Batch(inputs, inputs @ target.T)

    model = nn.Linear(2, 2)
    report = train(model, batches, config, out_dir=tmp_path, loss=mean_squared_error)
    torch.testing.assert_close(model.weight, target, rtol=0, atol=0.02)
    inputs, wanted = batches(0)
    torch.testing.assert_close(mean_squared_error(inputs, wanted), ((inputs - wanted) ** 2).mean())
    assert report.tokens == 200 * 8 * 4


class Poisoned(TinyModel):
    """Not finite from a given call on: in the output of a layer, or only in the gradient of one."""

    def __init__(self, how: str, calls: int):
        super().__init__()
        self.how, self.calls = how, calls

    def forward(self, tokens):
        self.calls -= 1
        x = self.embed(tokens)
        h = self.mlp(x / 0 if self.calls < 0 and self.how == "loss" else x)
        if self.calls < 0 and self.how == "gradient":
            # The square root's slope at zero is infinite, its value is not.
            h = h + (self.norm.bias - self.norm.bias.detach()).abs().sqrt()
        return self.unembed(self.norm(h))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("loss", r"at step 3, before its update: the loss is nan; every weight is finite; .* whose output .* 'mlp\.0'"),
        (
            "gradient",
            r"at step 3, .*: the loss is finite .*first gradient that is not finite is that of 'norm\.bias'; every",
        ),
    ],
)
def test_what_is_not_finite_is_named(tmp_path, how, message):
    # The first batch is asked for once more than the model is called.
    model, weights = Poisoned(how, calls=3), []

    def remember(done, *_):
        weights.append({n: p.detach().clone() for n, p in model.named_parameters()})

    with pytest.raises(NonFiniteError, match=message):
        train(model, random_windows(TOKENS, CONFIG), CONFIG, out_dir=tmp_path, on_progress=remember)
    assert len(weights) == 3
    assert all(torch.equal(p, weights[-1][n]) for n, p in model.named_parameters()), "the bad step was applied"


def test_a_batch_without_a_target_is_named(tmp_path):
    batches = random_windows(TOKENS, CONFIG)
    with pytest.raises(NonFiniteError, match="are all targets of the batch ignored"):
        train(
            TinyModel(),
            lambda step: Batch(batches(step).inputs, torch.full((4, 10), -100)),
            CONFIG,
            out_dir=tmp_path,
        )


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
    exact = _run(tmp_path / "exact")[1].losses
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

    model, report = _run(tmp_path / "a", replace(CONFIG, eval_every=5), dropout=0.2, evaluate=evaluate_and_draw)
    assert _same(model, _run(tmp_path / "b", dropout=0.2)[0]), "an evaluation moved the training"
    assert report.evaluations == ((5, {"bits": 1.0}), (10, {"bits": 2.0}), (12, {"bits": 3.0}))
    assert modes == [(False, False)] * 3
    assert report.tokens == 12 * 4 * 10 and report.tokens_per_second == report.tokens / report.seconds


def test_a_finished_run_is_loaded_and_not_repeated(tmp_path):
    first, report = _run(tmp_path)
    calls = []
    second, again = _run(tmp_path, on_progress=lambda *a: calls.append(a))
    assert _same(first, second) and again.losses == report.losses and not calls
    _, anew = _run(tmp_path, resume=False, on_progress=lambda *a: calls.append(a))
    assert len(calls) == 12 and anew.resumed_from is None


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    _run(tmp_path)
    with pytest.raises(ValueError, match=r"that run had learning_rate=0.01 \(now 0.02\); use its settings"):
        _run(tmp_path, replace(CONFIG, learning_rate=0.02))
    with pytest.raises(ValueError, match="first batch is not the first batch given now"):
        train(TinyModel(), random_windows(TOKENS[1:], CONFIG), CONFIG, out_dir=tmp_path)
    assert _run(tmp_path, replace(CONFIG, checkpoint_every=2))[1].resumed_from == 12


def test_no_code_is_run_from_a_checkpoint(tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"progress": Payload()}, tmp_path / CHECKPOINT_FILE)
    with pytest.raises(pickle.UnpicklingError):
        _run(tmp_path)
    assert not (tmp_path / "ran").exists()


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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0 was asked for; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 was asked for; it must be above 0"),
        ({"clip": -1.0}, "clip=-1.0"),
        ({"warmup": 12}, "warm-up of 12 updates was asked for in a run of 12"),
        ({"betas": (0.9, 1.0)}, r"each must be in \[0, 1\)"),
        ({"eval_every": 0}, "eval_every=0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **settings)


def test_batches_must_have_the_shape_in_the_settings(tmp_path):
    with pytest.raises(ValueError, match=r"batches of \(4, 9\) .* step 0 have shape \(4, 10\); make the two agree"):
        train(TinyModel(), random_windows(TOKENS, CONFIG), replace(CONFIG, context=9), out_dir=tmp_path)


if __name__ == "__main__":
    _killed_child(Path(sys.argv[1]), sys.argv[2])
