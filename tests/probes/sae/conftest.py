"""A tiny recurrent model with a matrix carry, one of transformers' own, and autoencoders with random weights."""

from typing import Any

import pytest
import torch
import transformers as tf
from torch.nn import functional as F

from strobe.models import HookedLM, ModelConfig
from strobe.models.huggingface import load_huggingface
from strobe.probes.sae import SparseAutoencoder

tf.logging.disable_progress_bar()


# It imports SAELens, which is not installed here.
collect_ignore = ["fixtures/make_saelens.py"]


@pytest.fixture(scope="session")
def native() -> HookedLM:
    """Mamba-2, a GRU and attention, untrained, with weights large enough to tell tokens apart; 40 tokens, width 16."""
    options = {"mamba2": {"heads": 2, "head_dim": 4, "state": 5}, "gru": {"hidden": 12}, "attention": {"n_heads": 2}}
    config = ModelConfig(
        d_model=16, d_vocab=40, layers=["mamba2", "gru", "attention"], mixer_options=options, mlp="plain", d_mlp=24
    )
    model = HookedLM(config, name="tiny").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.embed.weight.copy_(torch.randn(40, 16, generator=generator))
        for parameter in model.blocks.parameters():
            if parameter.ndim == 2:
                parameter.mul_(2)
    return model


@pytest.fixture(scope="session", params=["llama", "mamba"])
def huggingface(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny random model of transformers' real classes."""
    common: dict[str, Any] = {"vocab_size": 61, "pad_token_id": 0, "eos_token_id": 2, "num_hidden_layers": 2}
    torch.manual_seed(1)
    if request.param == "llama":
        config = tf.LlamaConfig(
            hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, **common
        )
        theirs: Any = tf.LlamaForCausalLM(config)
    else:
        theirs = tf.MambaForCausalLM(tf.MambaConfig(hidden_size=32, state_size=5, time_step_rank=3, **common))
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    folder = tmp_path_factory.mktemp(request.param)
    theirs.eval().save_pretrained(folder)
    return load_huggingface(folder, dtype=torch.float32)


def random_sae(model: Any, hook_name: str, d_in: int, d_sae: int = 40, **fields: Any) -> SparseAutoencoder:
    """TopK of 6 unless `fields` say otherwise, with random weights and unit rows."""
    generator = torch.Generator().manual_seed(7)
    rows = F.normalize(torch.randn(d_sae, d_in, generator=generator), dim=1)
    given = {
        "W_enc": torch.randn(d_in, d_sae, generator=generator) / d_in**0.5,
        "b_enc": 0.1 * torch.randn(d_sae, generator=generator),
        "W_dec": rows,
        "b_dec": 0.1 * torch.randn(d_in, generator=generator),
        "kind": "topk",
        "k": 6,
        "hook_name": hook_name,
        "model": model.model_name,
        "model_hash": model.weights_hash(),
    }
    return SparseAutoencoder(**{**given, **fields})


@pytest.fixture
def make_sae() -> Any:
    """`random_sae`, as tests take it."""
    return random_sae
