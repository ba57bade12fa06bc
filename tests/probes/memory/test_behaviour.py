"""Oracle: a theorem (a window's model cannot remember further), parities counted by hand, segments run one by one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import strobe
from strobe.probes.memory import EffectiveRemembrance, PositionLoss, effective_remembrance, position_loss
from strobe.probes.memory.remembrance import log_spaced
from strobe.probes.memory.streaming import Piece, losses, next_token_targets, pieces


def test_a_markov_model_remembers_nothing_before_its_order(native, tokens):
    # Attention over a window of 4 tokens: the prediction is a function of the last 4.
    result = effective_remembrance(native("attention"), tokens(5, 30), lengths=[1, 2, 3, 4, 5, 12, 29])
    assert result.distance[3:].max() < 1e-12
    assert result.distance[:3].mean(1).min() > 1e-3
    assert result.horizon(1e-9) == 4
    assert result.control.min() > 1e-3


def test_parity_remembers_everything_half_of_the_time():
    model = strobe.load("parity-gru")
    bits = np.random.default_rng(0).integers(2, size=(128, 30))
    result = effective_remembrance(model, bits, lengths=[1, 7, 29])
    for i, length in enumerate((1, 7, 29)):
        odd = bits[:, : 30 - length].sum(1) % 2
        assert np.abs(result.distance[i] - odd).max() < 1e-3
    assert abs(result.mean[0] - 0.5) < 0.1
    assert result.horizon() is None
    parity = bits.sum(1) % 2
    assert np.abs(result.control - (parity != np.roll(parity, 1))).max() < 1e-3


def test_lengths_are_spaced_by_the_logarithm():
    lengths = log_spaced(8192)
    assert lengths[0] == 1 and lengths[-1] == 8191 and 20 < len(lengths) <= 30
    ratios = np.diff(np.log(lengths[-12:]))
    assert np.ptp(ratios) < 0.02


def test_remembrance_is_saved_drawn_and_refused(native, tokens, tmp_path):
    model, x = native("gru"), tokens(3, 12)
    result = effective_remembrance(model, x)
    assert EffectiveRemembrance.load(result.save(tmp_path / "r.safetensors")) == result
    assert len(result.to_frame()) == result.distance.size
    assert [t.name for t in result.figure().data] == ["quartiles", "mean over contexts"]
    assert "another context (control)" in result.summary()
    for bad in (x[:1], x[:, :1]):
        with pytest.raises(ValueError, match="give two contexts"):
            effective_remembrance(model, bad)
    with pytest.raises(ValueError, match="suffixes of 1 token up to one less"):
        effective_remembrance(model, x, lengths=[12])


@pytest.mark.parametrize("layers", [("mamba2",), ("attention",), ("gru", "attention")])
def test_the_fresh_reading_is_each_segment_by_itself(layers, native, tokens):
    model, x = native(*layers), tokens(2, 44)
    result = position_loss(model, x, train_length=16, window=4)
    with torch.no_grad():
        whole = F.cross_entropy(model(x)[:, :-1].transpose(1, 2), x[:, 1:], reduction="none").mean(0)
        parts = torch.cat([model(x[:, s : s + 16]) for s in (0, 16, 32)], 1)
        fresh = F.cross_entropy(parts[:, :-1].transpose(1, 2), x[:, 1:], reduction="none").mean(0)
    np.testing.assert_allclose(result.loss, [float(p.mean()) for p in whole.split(4)], rtol=1e-6)
    np.testing.assert_allclose(result.fresh_loss, [float(p.mean()) for p in fresh.split(4)], rtol=1e-6)
    expected = np.mean(result.loss[4:] - result.fresh_loss[4:])
    np.testing.assert_allclose(result.harm, expected)
    assert np.abs(result.loss - result.fresh_loss)[:4].max() < 1e-12 < np.abs(result.loss - result.fresh_loss)[4:].max()
    assert result.forgetting_ratio == result.loss[4:].max() / result.loss[:4].max()


def test_position_loss_is_saved_drawn_and_refused(native, tokens, tmp_path):
    model, x = native("gru"), tokens(2, 40)
    result = position_loss(model, x)
    assert PositionLoss.load(result.save(tmp_path / "r.safetensors")) == result
    assert "(control)" in result.figure().data[0].name and len(result.to_frame()) == 10
    with pytest.raises(ValueError, match="found 16 tokens; give a longer input"):
        position_loss(model, x[:, :16])


def test_a_right_answer_is_the_most_likely_token_and_a_tie_is_decided_as_it_always_is(native, tokens):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 50, 11, generator=generator).round()
    logits[0, :20] = 0
    targets = torch.randint(11, (3, 50), generator=generator)
    targets[1, ::3] = -100
    nats, right, scored = losses(Piece(0, 50, logits, targets))
    # Rounded logits tie in most rows: equal to the largest is not the same as being the answer.
    assert ((logits == logits.amax(-1, keepdim=True)).sum(-1) > 1).double().mean() > 0.3
    assert torch.equal(right, (logits.argmax(-1) == targets) & (targets != -100))
    assert torch.equal(scored, targets != -100)
    expected = -logits.log_softmax(-1).gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(nats, expected.where(scored, torch.zeros(())))


def test_the_next_tokens_need_no_copy_of_the_input(native, tokens):
    model, x = native("mamba2"), tokens(2, 23)
    parts = list(pieces(model, x, targets="next", piece=7))
    assert torch.equal(torch.cat([p.targets for p in parts], 1), next_token_targets(x))
    assert [p.targets.shape[1] for p in parts] == [7, 7, 7, 2]
