"""Tiny native models of each recurrence, in float64, untrained and with decays that matter."""

import pytest
import torch

OPTIONS = {
    "mamba2": {"heads": 4, "head_dim": 2, "state": 3, "groups": 2},
    "mamba": {"inner": 8, "state": 3, "rank": 2},
    "gated_deltanet": {"heads": 4, "key": 3, "value": 2, "key_heads": 2},
    "mingru": {"hidden": 5},
    "rglru": {"inner": 8, "heads": 2},
    "rwkv4": {"hidden": 5},
    "gru": {"hidden": 5},
    "lstm": {"hidden": 5},
    "elman": {"hidden": 5},
    "attention": {"n_heads": 2, "window": 4},
}


@pytest.fixture
def native():
    """``native("mamba2", "gru")``: a model of these layers over 29 tokens."""
    from strobe.models import HookedLM, ModelConfig

    def make(*layers: str, dtype: torch.dtype = torch.float64, **changed) -> HookedLM:
        torch.manual_seed(3)
        options = {name: OPTIONS[name] for name in layers}
        config = ModelConfig(
            d_model=6, d_vocab=29, layers=layers, mixer_options=options, mlp="none", n_ctx=16, seed=3, **changed
        )
        model = HookedLM(config, name="tiny").to(dtype).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2 and "A_log" not in name:
                    parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
        return model

    return make


@pytest.fixture
def tokens():
    """``tokens(rows, time)``: token ids drawn uniformly from 29."""
    return lambda rows, time, seed=0: torch.randint(29, (rows, time), generator=torch.Generator().manual_seed(seed))
