"""Oracle: a theorem (with the scale held the parts add up), and removing a component by hand from the last residual.

Further: TransformerLens's own hook of the scale, and a model whose answer is known.
"""

import numpy as np
import pytest
import torch
import transformers as tf

from strobe.core import hook_names
from strobe.core.result import load_result
from strobe.models import HookedLM, ModelConfig
from strobe.models.huggingface import load_huggingface
from strobe.probes.attribution import direct_logit_attribution
from strobe.probes.attribution.components import decompose
from strobe.probes.attribution.frozen_norm import freeze_norm

OPTIONS = {
    "mamba2": {"heads": 3, "head_dim": 4, "state": 5},
    "gru": {"hidden": 12},
    "attention": {"n_heads": 2},
    "rwkv4": {"hidden": 9},
}
COMMON = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_hidden_layers": 2}
WIDE = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
PROMPTS = [[5, 9, 44, 3, 17], [7, 8, 3, 30]]
tf.logging.disable_progress_bar()


def native(*, odd: bool = False) -> HookedLM:
    layers = ("mamba2", "gru") if odd else ("mamba2", "gru", "attention", "rwkv4")
    config = ModelConfig(
        d_model=17 if odd else 16,
        d_vocab=61,
        layers=layers,
        mixer_options={name: OPTIONS[name] for name in layers},
        mlp="plain",
        d_mlp=24,
        tie_embeddings=False,
    )
    model = HookedLM(config, name="small").eval().requires_grad_(False)
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def huggingface(kind, folder):
    configs = {
        "gpt2": tf.GPT2Config(n_embd=32, n_head=4, n_layer=2, vocab_size=61),
        "gemma2": tf.Gemma2Config(head_dim=8, final_logit_softcapping=2.0, **WIDE, **COMMON),
        "mamba": tf.MambaConfig(hidden_size=32, state_size=5, time_step_rank=3, **COMMON),
        "rwkv": tf.RwkvConfig(hidden_size=32, attention_hidden_size=32, **COMMON),
        "recurrent_gemma": tf.RecurrentGemmaConfig(
            **{**WIDE, **COMMON, "num_hidden_layers": 3}, lru_width=32, attention_window_size=6, logits_soft_cap=2.0
        ),
        "qwen3_next": tf.Qwen3NextConfig(
            **{**WIDE, **COMMON, "num_hidden_layers": 4}, head_dim=8, linear_num_key_heads=2, linear_num_value_heads=4,
            linear_key_head_dim=7, linear_value_head_dim=9, num_experts_per_tok=2, moe_intermediate_size=16,
            shared_expert_intermediate_size=16, num_experts=4,
        ),
    }  # fmt: skip
    torch.manual_seed(1)
    theirs = tf.AutoModelForCausalLM.from_config(configs[kind]).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    return load_huggingface(folder, dtype=torch.float32)


@pytest.fixture(
    scope="module", params=["native", "odd", "gpt2", "gemma2", "mamba", "rwkv", "recurrent_gemma", "qwen3_next"]
)
def model(request, tmp_path_factory):
    if request.param in ("native", "odd"):
        return native(odd=request.param == "odd")
    return huggingface(request.param, tmp_path_factory.mktemp(request.param))


def test_components_add_up_to_the_logit_difference_and_only_with_the_scale(model):
    result = direct_logit_attribution(model, PROMPTS, [4, 6], [9, 2])
    with torch.no_grad():
        logits = torch.stack([model(torch.tensor([p]))[0, -1] for p in PROMPTS]).double()
    if result.transformed:
        cap = "logits_soft_cap" if "recurrent_gemma" in model.model_name else "final_logit_softcapping"
        assert getattr(model.hf_config, cap) == 2.0
        logits = 2.0 * torch.atanh(logits / 2.0)
    actual = (logits[[0, 1], [4, 6]] - logits[[0, 1], [9, 2]]).numpy()
    assert np.abs(actual).min() > 0.02
    np.testing.assert_allclose(result.logit_difference, actual, atol=1e-3)
    np.testing.assert_allclose(result.total, actual, atol=1e-3)
    assert np.abs(result.unscaled.sum(1) + result.constant - actual).min() > 1e-2
    assert np.abs(result.contributions).min(0).max() > 1e-2


def test_the_frozen_scale_is_the_one_of_the_norms_own_hook(model):
    tokens = torch.tensor([PROMPTS[0]])
    name = hook_names.LN_FINAL_SCALE
    if name not in model.hook_dict:
        pytest.skip("this bridge has no hook of the final norm's scale")
    _, cache = model.run_with_cache(tokens, names_filter=name)
    norm = freeze_norm(model, decompose(model, tokens).final[0])
    found = norm.scale.flatten()
    # Up to a factor, where the norm's weight absorbs it.
    ratio = found / cache[name].flatten()
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)


def test_a_contribution_is_what_removing_the_component_takes_away():
    model = native()
    result = direct_logit_attribution(model, PROMPTS[0], 4, 9)
    found = decompose(model, torch.tensor([PROMPTS[0]]), -1)
    assert found.names == ["embed", *(f"{i} {kind}" for i in range(4) for kind in ("mixer", "mlp"))]
    scale = (found.final[0, 0].pow(2).mean() + model.config.norm_eps).sqrt()
    W = model.W_U.T[4] - model.W_U.T[9]
    for i, part in enumerate(found.parts[:, 0, 0]):
        with_it, without = (
            W @ (model.ln_final.weight * h / scale) for h in (found.final[0, 0], found.final[0, 0] - part)
        )
        assert result.contributions[0, i] == pytest.approx(float(with_it - without), abs=1e-5)


def test_accumulated_is_what_the_residual_stream_holds_at_each_block(model):
    result = direct_logit_attribution(model, PROMPTS[0], 4, 9)
    n = model.cfg.n_layers
    names = [hook_names.resid_pre(i) for i in range(n)]
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([PROMPTS[0]]), names_filter=names)
    final = decompose(model, torch.tensor([PROMPTS[0]]), -1).final[0]
    norm = freeze_norm(model, final)
    W = (model.W_U.T[4] - model.W_U.T[9]).detach()
    for i in range(n):
        last = max(c for c, layer in enumerate(result.layers) if layer < i)
        held = float(W @ norm(cache[names[i]][0, -1])[0]) + result.constant[0]
        assert result.accumulated[0, last] == pytest.approx(held, abs=1e-3)


def test_a_block_that_scales_its_output_has_a_remainder():
    model = native()
    hook = model.blocks[1].register_forward_hook(lambda module, args, out: out * 1.5)
    try:
        found = decompose(model, torch.tensor([PROMPTS[0]]), -1)
    finally:
        hook.remove()
    # resid_post is hooked inside the block, so the next block's resid_pre is where the factor shows.
    assert [n for n in found.names if "rest" in n] == ["1 rest"]
    torch.testing.assert_close(found.parts.sum(0), found.final, rtol=1e-4, atol=1e-4)


def test_the_component_that_writes_the_answer_is_found(tmp_path):
    config = ModelConfig(
        d_model=16,
        d_vocab=61,
        layers=("gru", "gru"),
        mixer_options={"gru": OPTIONS["gru"]},
        mlp="plain",
        d_mlp=24,
        tie_embeddings=False,
    )
    model = HookedLM(config, name="planted").eval().requires_grad_(False)
    torch.manual_seed(0)
    for block in model.blocks:
        block.mlp.W_out.weight.zero_()
    # The second mixer writes W_U[4] whatever it reads; nothing else is changed.
    model.blocks[1].mixer.out_proj.weight.zero_()
    add = model.blocks[1].mixer.register_forward_hook(lambda m, a, out: out + 5.0 * model.W_U.T[4])
    try:
        result = direct_logit_attribution(model, [5, 9, 3], 4)
    finally:
        add.remove()
    assert result.components[int(np.argmax(result.contributions[0]))] == "1 mixer"
    assert result.labels == [("4", "(mean)")]
    assert load_result(result.save(tmp_path / "a.safetensors")) == result
    frame = result.to_frame().set_index("component")
    assert frame.loc["1 mixer", "contribution"] > 2 * frame.loc["1 mixer", "random_rms"]
    figure = result.figure()
    assert list(figure.layout.xaxis.ticktext) == result.components
    assert list(figure.data[-1].y) == pytest.approx(list(result.contributions[0]))
    assert list(result.figure(accumulated=True).data[-1].y) == pytest.approx(list(result.accumulated[0]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([5], 4, 4), ValueError, "the same token"),
        (([5], 61, 4), ValueError, "outside the vocabulary"),
        (([], 4, 5), ValueError, "no prompt"),
        (([[5], []], 4, 5), ValueError, "is empty"),
        (([[5], [6]], [4], [5]), ValueError, "1 answers were given for 2 prompts"),
        (([5], " x", 5), ValueError, "without a tokenizer"),
    ],
)
def test_what_cannot_be_attributed_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        direct_logit_attribution(native(), *arguments)


def test_a_position_outside_the_prompt_is_refused():
    with pytest.raises(IndexError, match="position 3 was asked for; a prompt has 2 tokens"):
        direct_logit_attribution(native(), [5, 6], 4, 5, position=3)
