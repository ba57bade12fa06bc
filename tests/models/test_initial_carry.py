"""Oracle: the model itself, given by hand the state that each kind of start hands on."""

import pytest
import torch

from strobe.models import HookedLM, ModelConfig
from strobe.models.training import TrainingConfig, train
from strobe.models.training.batches import Batch
from strobe.models.training.initial_carry import STARTS, CarriedStart


def model(*layers):
    torch.manual_seed(2)
    options = {"mamba2": {"heads": 2, "head_dim": 3, "state": 4}, "gru": {"hidden": 5}, "attention": {"n_heads": 2}}
    config = ModelConfig(
        d_model=6, d_vocab=11, layers=layers, mixer_options={k: options[k] for k in layers}, mlp="none", seed=2
    )
    return HookedLM(config).double()


def draws(n, rows=3, time=7):
    g = torch.Generator().manual_seed(5)
    return [torch.randint(11, (rows, time), generator=g) for _ in range(n)]


def test_state_passing_begins_where_another_row_ended():
    plain, first, second = model("mamba2", "gru"), *draws(2)
    started = CarriedStart(plain, "state passing")
    with torch.no_grad():
        assert torch.equal(started(first), plain(first))
        found = started(second)
        state = plain.state_after(first)
        state.carries = {n: type(c)(*(x.roll(1, 0) for x in c)) for n, c in state.carries.items()}
        assert (found - plain(second, state)).abs().max() < 1e-12
        assert (found - plain(second)).abs().max() > 1e-6


def test_truncated_bptt_goes_on_for_as_many_batches_as_were_concatenated():
    plain, batches = model("mamba2"), draws(5)
    started = CarriedStart(plain, "truncated bptt", concatenated=2)
    with torch.no_grad():
        found = [started(b) for b in batches]
        for i in (0, 2, 4):
            assert torch.equal(found[i], plain(batches[i]))
        for i in (1, 3):
            assert (found[i] - plain(batches[i], plain.state_after(batches[i - 1]))).abs().max() < 1e-12


def test_noise_has_the_scale_asked_for_and_reaches_the_memory_only():
    plain = model("gru")
    started, mixer = CarriedStart(plain, "noise", scale=0.3), plain.mixers["blocks.0.mixer"]
    empty = mixer.init_carry(4000, torch.float64, torch.device("cpu"))
    drawn = started._begin(mixer, empty, None)
    assert abs(float(drawn.h.std()) / 0.3 - 1) < 0.05 and abs(float(drawn.h.mean())) < 0.01
    windows = CarriedStart(model("mamba2"), "noise")
    mamba = windows.model.mixers["blocks.0.mixer"]
    carry = windows._begin(mamba, mamba.init_carry(2, torch.float64, torch.device("cpu")), None)
    assert carry.S.std() > 0.5 and not carry.conv.any()


def test_fitted_noise_has_each_heads_mean_and_deviation():
    plain = model("mamba2")
    started, mixer = CarriedStart(plain, "fitted noise"), plain.mixers["blocks.0.mixer"]
    rows = 3000
    S = torch.randn(rows, 2, 4, 3, dtype=torch.float64) * torch.tensor([0.1, 5.0]).reshape(1, 2, 1, 1) + 2
    empty = mixer.init_carry(rows, torch.float64, torch.device("cpu"))
    drawn = started._begin(mixer, empty, (S, empty.conv + 1))
    assert not drawn.conv.any() and not torch.equal(drawn.S, S)
    for head, deviation in enumerate((0.1, 5.0)):
        values = drawn.S[:, head]
        assert abs(float(values.std()) / deviation - 1) < 0.05 and abs(float(values.mean()) - 2) < 0.2 * deviation


def test_no_gradient_goes_back_into_the_batch_before_and_attention_starts_empty():
    plain, first, second = model("mamba2", "attention"), *draws(2)
    started = CarriedStart(plain, "state passing")
    started(first)
    assert all(not x.requires_grad for c in started._last.values() for x in c)
    assert list(started._last) == ["blocks.0.mixer"]
    started(second).sum().backward()
    assert plain.embed.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("start", STARTS)
def test_a_run_that_was_stopped_ends_as_one_that_was_not(start, tmp_path):
    config = TrainingConfig(steps=6, batch_size=3, context=7, learning_rate=1e-2, checkpoint_every=3)
    batches = draws(6)

    def stop(done, total, message):
        if done == 3:
            raise KeyboardInterrupt

    def trained(folder, interrupted):
        started = CarriedStart(model("mamba2"), start)
        if interrupted:
            with pytest.raises(KeyboardInterrupt):
                train(started, lambda s: Batch(batches[s], batches[s]), config, out_dir=folder, on_progress=stop)
            started = CarriedStart(model("mamba2"), start)
        train(started, lambda s: Batch(batches[s], batches[s]), config, out_dir=folder)
        return started.model.state_dict()

    whole, pieces = trained(tmp_path / "whole", False), trained(tmp_path / "pieces", True)
    assert all(torch.equal(whole[name], pieces[name]) for name in whole)


def test_bad_starts_are_named():
    with pytest.raises(ValueError, match="there are noise, fitted noise, state passing, truncated bptt"):
        CarriedStart(model("gru"), "warm")
    with pytest.raises(ValueError, match="has no recurrent layer"):
        CarriedStart(model("attention"), "noise")
