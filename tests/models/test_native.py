"""Oracle: the block written out by hand; TransformerLens's tools against doing it by hand; the model not wrapped."""

import pytest
import torch
import torch.nn.functional as F

from strobe.core.tolerances import assert_close, relative_error
from strobe.models import mixers
from strobe.models.config import ModelConfig
from strobe.models.native import HookedLM

LAYERS = ["gru", "attention", "mamba2"]
OPTIONS = {
    "gru": {"hidden": 7},
    "attention": {"n_heads": 2},
    "mamba2": {"heads": 2, "head_dim": 3, "state": 4},
}


def build(layers=LAYERS, **changes):
    options = {n: OPTIONS[n.partition(":")[0]] for n in layers}
    config = {"d_model": 8, "d_vocab": 11, "layers": layers, "mixer_options": options, "d_mlp": 10} | changes
    model = HookedLM(ModelConfig(**config)).double()
    # Untrained embeddings are small, and so would be every difference.
    with torch.no_grad():
        model.embed.weight.mul_(30)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(11, (2, 9), generator=torch.Generator().manual_seed(1))


def rms(x, norm, eps=1e-5):
    return x / (x**2).mean(-1, keepdim=True).add(eps).sqrt() * norm.weight


@pytest.mark.parametrize("mlp", ["gated", "plain", "none"])
def test_the_model_is_its_equations(tokens, mlp):
    model = build(mlp=mlp, d_mlp=0 if mlp == "none" else 10)
    x = model.embed.weight[tokens]
    for block in model.blocks:
        x = x + block.mixer(rms(x, block.ln1))
        if mlp == "gated":
            m = rms(x, block.ln2)
            x = x + (F.silu(m @ block.mlp.W_gate.weight.T) * (m @ block.mlp.W_in.weight.T)) @ block.mlp.W_out.weight.T
        if mlp == "plain":
            x = x + F.gelu(rms(x, block.ln2) @ block.mlp.W_in.weight.T) @ block.mlp.W_out.weight.T
    assert_close(model(tokens), rms(x, model.ln_final) @ model.embed.weight.T, kind="scan")


def test_every_registered_mixer_makes_a_model(tokens):
    options = {
        "elman": {"hidden": 5}, "lstm": {"hidden": 5}, "mingru": {"hidden": 5}, "rwkv4": {"hidden": 5},
        "slstm": {"hidden": 6, "heads": 2},
        "rglru": {"inner": 8, "heads": 2}, "mamba": {"inner": 8, "state": 3, "rank": 1},
        "gated_deltanet": {"heads": 2, "key": 3, "value": 2}, "rwkv4_channel_mix": {"d_mlp": 9}, **OPTIONS,
    }  # fmt: skip
    config = ModelConfig(d_model=8, d_vocab=11, layers=mixers.names(), mixer_options=options, d_mlp=10)
    model = HookedLM(config).double()
    whole = model(tokens)
    state = model.state_after(tokens[:, :4])
    assert_close(model(tokens[:, 4:], state), whole[:, 4:], kind="scan")
    F.cross_entropy(whole.flatten(0, 1), tokens.flatten()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()] == []


def test_the_seed_decides_the_weights_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    a, b, c = build(), build(), build(seed=1)
    assert torch.equal(torch.rand(3), expected)
    assert a.weights_hash() == b.weights_hash() != c.weights_hash()


def test_residual_writes_start_smaller():
    """By sqrt(2 layers), compared with a model of one layer."""
    deep, flat = build(["gru"] * 8), build(["gru"])
    for name in ("mixer.out_proj.weight", "mlp.W_out.weight"):
        ratio = flat.blocks[0].get_parameter(name) / deep.blocks[0].get_parameter(name)
        assert_close(ratio, torch.full_like(ratio, 8**0.5), kind="logits", dtype=torch.float32)


def test_real_inputs():
    model = build(d_input=3, tie_embeddings=False)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    assert model(x).shape == (2, 5, 11)
    assert_close(model(x[:, 2:], model.state_after(x[:, :2])), model(x)[:, 2:], kind="scan")


def test_labels_give_two_kinds_of_one_mixer():
    options = {"gru:small": {"hidden": 4}, "gru": {"hidden": 9}}
    model = HookedLM(ModelConfig(d_model=8, d_vocab=11, layers=["gru:small", "gru"], mixer_options=options, d_mlp=4))
    assert [b.mixer.config.hidden for b in model.blocks] == [4, 9]


# TransformerLens ------------------------------------------------------------------------------------------------------


def test_accumulated_resid_and_logit_lens_end_at_the_logits(model, tokens):
    logits, cache = model.run_with_cache(tokens)
    stack, labels = cache.accumulated_resid(return_labels=True, apply_ln=True)
    assert labels[-1] == "final_post" and stack.shape == (4, 2, 9, 8)
    assert_close((stack[-1] * model.ln_final.weight) @ model.W_U, logits, kind="scan")
    lens = cache.logit_lens()
    assert_close(lens.values[-1], logits[:, -1], kind="logits", dtype=torch.float32)
    earlier = rms(cache["resid_post", 0], model.ln_final) @ model.W_U
    assert_close(lens.values[1], earlier[:, -1], kind="logits", dtype=torch.float32)
    resid = cache["resid_post", 1]
    assert_close(cache.accumulated_resid()[2], resid, kind="scan")


def test_decompose_resid_adds_up(model, tokens):
    _, cache = model.run_with_cache(tokens)
    parts = [cache["hook_embed"]]
    parts += [cache[f"blocks.{i}.hook_{p}"] for i in range(3) for p in ("mixer_out", "mlp_out")]
    assert_close(sum(parts), cache["resid_post", -1], kind="scan")


def test_activation_patching_equals_patching_by_hand(model, tokens):
    from transformer_lens.patching import get_act_patch_resid_pre

    corrupted = tokens.clone()
    corrupted[:, 2] = (corrupted[:, 2] + 1) % 11
    _, clean = model.run_with_cache(tokens)

    def metric(logits):
        return (logits[:, -1] * torch.arange(11)).sum()

    with torch.no_grad():
        got = get_act_patch_resid_pre(model, corrupted, clean, metric)
    assert got.shape == (3, 9)
    for layer in range(3):
        for position in (2, 5):

            def patch(resid, hook, layer=layer, position=position):
                new = resid.clone()
                new[:, position] = clean[f"blocks.{layer}.hook_resid_pre"][:, position]
                return new

            expected = metric(model.run_with_hooks(corrupted, fwd_hooks=[(f"blocks.{layer}.hook_resid_pre", patch)]))
            assert abs(float(got[layer, position]) - expected.item()) < 1e-4 * abs(expected.item())
    # Patching what differs at layer 0 brings back the clean run; patching after it, at the token itself, does not.
    assert_close(got[0, 2], metric(model(tokens)).float(), kind="logits", dtype=torch.float32)
    assert relative_error(got[2, 2], got[0, 2]) > 1e-6


def test_aliases_point_at_the_same_hooks(model, tokens):
    _, cache = model.run_with_cache(tokens, states=[3, -1])
    assert torch.equal(cache["state", 2], cache["blocks.2.mixer.hook_state"])
    assert torch.equal(cache["blocks.2.mixer.hook_ssm_decay"], cache["blocks.2.mixer.hook_decay"])
    assert torch.equal(cache["blocks.1.hook_attn_out"], cache["blocks.1.hook_mixer_out"])
    assert torch.equal(cache["blocks.1.hook_out"], cache["blocks.1.hook_resid_post"])
    assert "blocks.0.hook_attn_out" not in cache


def test_what_the_protocol_says(model):
    assert (model.cfg.n_layers, model.cfg.d_model, model.cfg.d_vocab, model.cfg.n_heads) == (3, 8, 11, 2)
    assert torch.equal(model.W_U.T, model.W_E)
    assert torch.equal(model.tokens_to_residual_directions(torch.tensor([3, 4])), model.W_U.T[[3, 4]])
    with pytest.raises(ValueError, match="without a tokenizer"):
        model.to_str_tokens("abc")


def test_nnsight_leaves_the_outputs_unchanged(tokens):
    from nnsight import NNsight

    model = build()
    expected = model(tokens)
    wrapped = NNsight(model)
    with wrapped.trace(tokens):
        resid = wrapped.blocks[1].hook_resid_pre.output.save()
        out = wrapped.output.save()
    assert torch.equal(out, expected)
    _, cache = model.run_with_cache(tokens, names_filter="blocks.1.hook_resid_pre")
    assert torch.equal(resid, cache["blocks.1.hook_resid_pre"])
    assert torch.equal(model(tokens), expected)


def test_accumulated_bias_is_what_the_mixers_add_to_a_stream_of_nothing():
    options = {"rglru": {"inner": 8, "heads": 2}, "gru": {"hidden": 8}}
    config = ModelConfig(d_model=8, d_vocab=7, layers=["rglru", "gru"], mixer_options=options, mlp="none")
    model = HookedLM(config)
    with torch.no_grad():
        model.blocks[0].mixer.out_proj.bias.copy_(torch.arange(8.0))
    assert torch.equal(model.accumulated_bias(0), torch.zeros(8))
    assert torch.equal(model.accumulated_bias(0, mlp_input=True), torch.arange(8.0))
    assert torch.equal(model.accumulated_bias(2), torch.arange(8.0))
