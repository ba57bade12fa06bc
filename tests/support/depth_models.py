"""Small random models for the tests of depth, and ones whose blocks are copies of each other."""

import numpy as np
import torch

from strobe.models import HookedLM, ModelConfig

VOCAB, D = 61, 16
TOKENS = np.random.default_rng(0).integers(3, VOCAB, (12, 11))


def build(*layers, seed=0):
    """A random model of the named mixers with every parameter off its initial value."""
    every = {"mamba2": {"heads": 3, "head_dim": 4, "state": 5}, "attention": {"n_heads": 2}, "gru": {"hidden": 9}}
    options = {name: every[name] for name in set(layers)}
    config = ModelConfig(
        d_model=D, d_vocab=VOCAB, layers=layers, mixer_options=options, mlp="plain", d_mlp=24, seed=seed
    )
    model = HookedLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def tied(groups):
    """A transformer whose blocks are copies of as many different ones as there are groups."""
    model = build(*["attention"] * len(groups))
    for i, group in enumerate(groups):
        model.blocks[i].load_state_dict(model.blocks[groups.index(group)].state_dict())
    return model
