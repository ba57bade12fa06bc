"""Oracle: transformers' own full forward, on the whole input and on what follows a reset, and its own decays."""

import numpy as np
import pytest
import torch
import transformers as tf

from strobe.models.huggingface import load_huggingface
from strobe.probes.memory import (
    Asked,
    Reset,
    SlidingWindow,
    capacity,
    compare_mitigations,
    diagnose,
    effective_remembrance,
    memory_curve,
    position_loss,
)
from strobe.probes.memory.streaming import as_inputs, pieces

COMMON = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_hidden_layers": 2}
MODELS = {
    "mamba": (tf.MambaForCausalLM, tf.MambaConfig(hidden_size=32, state_size=5, time_step_rank=3, **COMMON)),
    "mamba2": (
        tf.Mamba2ForCausalLM,
        tf.Mamba2Config(hidden_size=32, num_heads=4, head_dim=16, state_size=8, n_groups=2, expand=2, **COMMON),
    ),
    "qwen3_next": (
        tf.Qwen3NextForCausalLM,
        tf.Qwen3NextConfig(
            hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
            linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8,
            num_experts=0, decoder_sparse_step=1, mlp_only_layers=[0, 1],
            layer_types=["linear_attention", "full_attention"], **COMMON,
        ),
    ),
    "recurrent_gemma": (
        tf.RecurrentGemmaForCausalLM,
        tf.RecurrentGemmaConfig(
            hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=1, lru_width=40,
            attention_window_size=6, **{**COMMON, "num_hidden_layers": 3},
        ),
    ),
    "rwkv": (tf.RwkvForCausalLM, tf.RwkvConfig(hidden_size=32, attention_hidden_size=24, rescale_every=0, **COMMON)),
    "llama": (
        tf.LlamaForCausalLM,
        tf.LlamaConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, **COMMON),
    ),
}  # fmt: skip
tf.logging.disable_progress_bar()


def build(name, folder):
    kind, config = MODELS[name]
    torch.manual_seed(1)
    theirs = kind(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 2 and parameter.shape[-1] > 5:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    theirs.save_pretrained(folder)
    return theirs, load_huggingface(folder, dtype=torch.float32)


@pytest.fixture(scope="module", params=MODELS)
def models(request, tmp_path_factory):
    return request.param, *build(request.param, tmp_path_factory.mktemp(request.param))


TOKENS = torch.randint(3, 61, (2, 37), generator=torch.Generator().manual_seed(0))


def test_a_stream_in_pieces_is_transformers_own_pass(models):
    _, theirs, model = models
    with torch.no_grad():
        expected = theirs(TOKENS, use_cache=False).logits
    found = torch.cat([p.logits for p in pieces(model, as_inputs(model, TOKENS), piece=9)], 1)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


def test_the_carry_is_diagnosed_or_the_reason_said(models):
    name, _, model = models
    if name == "llama":
        with pytest.raises(ValueError, match="no recurrent layer; position_loss and effective_remembrance apply"):
            diagnose(model, TOKENS, train_length=12)
    else:
        result = diagnose(model, TOKENS, train_length=12, stride=4)
        assert result.layers == ((0,) if name == "qwen3_next" else (0, 1))
        assert all(np.isfinite(n).all() and n.shape[0] == 9 for n in result.head_norm)
        assert all(np.isfinite(x).all() and (x < 0).all() for x in result.log_retention)
        curve = memory_curve(model, torch.randint(3, 9, (64, 40)), 0, lags=(0, 1))
        assert np.isfinite(curve.r2).all() and curve.r2[0] > curve.control.max()
        # The last token has no next one, and a window of its own here.
        assert np.isfinite(result.window_loss[:-1]).all()
    assert np.isfinite(position_loss(model, TOKENS, train_length=12).harm)
    distance = effective_remembrance(model, TOKENS, lengths=[1, 36]).distance
    assert (distance >= 0).all() and (distance <= 1).all()


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_after_a_reset_transformers_reads_the_rest_alone(name, tmp_path):
    theirs, model = build(name, tmp_path)
    reset = Reset(every=16, part="all")
    parts = pieces(model, as_inputs(model, TOKENS), looks=reset.looks, hooks=reset.hooks(model), piece=20)
    found = torch.cat([p.logits for p in parts], 1)
    with torch.no_grad():
        expected = torch.cat([theirs(TOKENS[:, s : s + 16], use_cache=False).logits for s in (0, 16, 32)], 1)
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


def test_retention_of_mamba2_is_that_of_its_released_parametrisation(tmp_path):
    theirs, model = build("mamba2", tmp_path)
    kept = {}
    mixer = theirs.backbone.layers[0].mixer
    hook = mixer.in_proj.register_forward_hook(lambda m, args, out: kept.update(out=out))
    with torch.no_grad():
        theirs(TOKENS, use_cache=False)
    hook.remove()
    dt = torch.nn.functional.softplus(kept["out"][..., -4:] + mixer.dt_bias)
    decay = (-mixer.A_log.exp() * dt.clamp(*mixer.time_step_limit)).detach().mean(0).cumsum(0)
    result = diagnose(model, TOKENS, train_length=12, stride=4, layers=[0])
    np.testing.assert_allclose(result.log_retention[0], decay[3::4], rtol=1e-4)


def test_mitigations_run_behind_the_seam(models):
    name, _, model = models
    if name == "llama":
        with pytest.raises(ValueError, match="with a recurrent carry: none"):
            compare_mitigations(model, TOKENS, [Reset(every=12)], train_length=12)
        return
    result = compare_mitigations(model, TOKENS, [Reset(every=12)], train_length=12)
    assert result.runs == ("untouched", "reset memory every 12", "swap memory every 12")
    assert np.allclose(result.loss[0, 0], result.loss[:, 0]) and not np.allclose(result.loss[0, 1:], result.loss[1, 1:])


def test_what_greedy_decoding_says_is_recalled(models):
    _, theirs, model = models
    with torch.no_grad():
        said = theirs(TOKENS, use_cache=False).logits[:, -1:].argmax(-1).numpy()

    def make(length, depth, n, rng):
        return Asked(TOKENS.numpy(), said)

    assert capacity(model, make, [37], task="its own words", depths=[0.5], n=2).accuracy.tolist() == [[1.0]]


def test_a_window_as_long_as_the_past_is_the_whole_past(models):
    name, theirs, model = models
    if name == "llama":
        with pytest.raises(ValueError, match="with a recurrent carry: none"):
            SlidingWindow(window=4).open(model).__enter__()
        return
    with torch.no_grad():
        expected = theirs(TOKENS, use_cache=False).logits
    for window, same in ((37, True), (1, False)):
        with SlidingWindow(window=window).open(model):
            found = torch.cat([p.logits for p in pieces(model, as_inputs(model, TOKENS), piece=9)], 1)
        close = torch.isclose(found, expected, atol=2e-4, rtol=2e-4)
        # The first token has no other past.
        assert close.all() if same else (close[:, :1].all() and not close[:, 1:].all())
