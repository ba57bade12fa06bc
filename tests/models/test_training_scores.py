"""Oracle: closed forms (the entropy of a chain, the logarithm of a vocabulary), and every token scored by itself."""

from math import log

import numpy as np
import pytest
import torch
from tiny_training import TOKENS, VOCAB, TinyModel
from torch import nn

from strobe.models.training import (
    Batch,
    TrainingConfig,
    cross_entropy,
    evaluate_bits_per_byte,
    held_out_nats_per_token,
    mean_squared_error,
    random_windows,
    train,
)


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
