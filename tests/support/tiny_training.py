"""What the tests of training share: a tiny language model with dropout, its tokens and settings, and one run of it."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from strobe.models.training import TrainingConfig, random_windows, train

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


def trained(out_dir: Path, config: TrainingConfig = CONFIG, *, dropout: float = 0.0, **options):
    """(a new model after its training on `TOKENS` into `out_dir`, the report)."""
    model = TinyModel(dropout=dropout)
    return model, train(model, random_windows(TOKENS, config), config, out_dir=out_dir, **options)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether the weights of the two are the same to the bit."""
    theirs = b.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in a.state_dict().items())
