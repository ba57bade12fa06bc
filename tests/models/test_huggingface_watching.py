"""Oracle: the full forward of the same transformers release, where ours is watched, edited and driven by others."""

import pytest
import torch
from huggingface_cases import TIME, VOCAB, every, oracle, pair, recurrent_layers, tokens

from strobe.core.errors import HookError
from strobe.core.tolerances import assert_close, relative_error
from strobe.models.run import Run, running


@every
@torch.no_grad()
def test_watching_everything_changes_no_number(name):
    model, rows = pair(name)[1], tokens(2, TIME)
    logits, cache = model.run_with_cache(rows, states=[0, 5, -1])
    assert_close(logits, oracle(name, rows), kind="logits")
    silent = {key for key in model.hook_dict if ".mixer." in key and "carry" not in key} - set(cache.keys())
    assert not silent


@pytest.mark.parametrize("name", ["qwen3_next", "gpt2", "gpt_neox", "llama", "mistral", "qwen3", "gemma2"])
@torch.no_grad()
def test_the_inside_of_attention_is_seen_and_edited(name):
    model, rows = pair(name)[1], tokens(2, TIME)
    here = next(f"blocks.{c.layer}.attn.hook_pattern" for c in model._kept)
    logits, cache = model.run_with_cache(rows, names_filter=[here, here.replace("pattern", "z")])
    pattern = cache[here]
    assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]), kind="logits")
    assert not pattern.triu(1).any()
    assert_close(logits, oracle(name, rows), kind="logits")
    edited = model.run_with_hooks(rows, fwd_hooks=[(here, lambda tensor, hook: torch.zeros_like(tensor))])
    assert relative_error(edited, logits) > 1e-2
    assert_close(model(rows), oracle(name, rows), kind="logits")


@every
@torch.no_grad()
def test_the_residual_stream_adds_up(name):
    """The identity x_post = x_pre + mixer + mlp holds between the hooks of each block."""
    model = pair(name)[1]
    logits, cache = model.run_with_cache(tokens(2, TIME))
    for i in range(model.cfg.n_layers):
        # Layer 0 of RWKV norms the embedding before its residual stream begins.
        start = f"blocks.{i}.pre_ln.hook_out"
        pre = cache[start if start in cache.keys() else f"blocks.{i}.hook_resid_pre"]  # noqa: SIM118
        mixed = pre + cache[f"blocks.{i}.hook_mixer_out"]
        if f"blocks.{i}.hook_resid_mid" in model.hook_dict and name != "gpt_neox":
            assert_close(cache[f"blocks.{i}.hook_resid_mid"], mixed, kind="logits")
        if f"blocks.{i}.hook_mlp_out" in model.hook_dict:
            mixed = mixed + cache[f"blocks.{i}.hook_mlp_out"]
        assert_close(cache[f"blocks.{i}.hook_resid_post"], mixed, kind="logits")
    last = cache[f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"]
    assert cache["hook_embed"].shape == last.shape
    weight = model.ln_final.weight if model.cfg.normalization_type == "LN" else None
    assert cache["ln_final.hook_scale"].shape == (2, TIME, 1)
    if weight is not None:
        plain = (last - last.mean(-1, keepdim=True)) / cache["ln_final.hook_scale"]
        assert_close(cache["ln_final.hook_normalized"], plain, kind="logits")
    stack = cache.accumulated_resid(apply_ln=True)
    assert stack.shape[0] >= model.cfg.n_layers and bool(stack.isfinite().all())
    assert logits.shape == (2, TIME, VOCAB) == (2, TIME, model.cfg.d_vocab)
    assert model.W_U.shape == (model.cfg.d_model, VOCAB)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "qwen3_next", "recurrent_gemma"])
@torch.no_grad()
def test_the_bridge_and_transformers_run_our_mixers_by_themselves(name):
    model = pair(name)[1]
    rows = tokens(2, 5)
    key = recurrent_layers(model)[0]
    assert_close(model.bridge(rows), oracle(name, rows), kind="logits")
    wanted = [f"{key}.hook_read", f"{key}.hook_state", f"{key}.hook_out"]
    assert set(wanted) | {f"{key}.hook_carry"} <= set(model.bridge.hook_dict)
    _, ours = model.run_with_cache(rows, names_filter=wanted, states=[-1])
    _, cache = model.bridge.run_with_cache(rows, names_filter=wanted)
    for one in wanted:
        assert_close(cache[one], ours[one], kind="logits")
    with running(model.carriers, Run(looks=[0, 2])):
        _, cache = model.bridge.run_with_cache(rows, names_filter=wanted)
    assert cache[f"{key}.hook_state"].shape[1] == 2
    greedy = model.generate(rows, 5, temperature=0.0, stop_at_eos=False)
    assert torch.equal(model.hf.generate(rows, max_new_tokens=5, do_sample=False, eos_token_id=None), greedy)
    made = model.bridge.generate(rows, 5, do_sample=False, stop_at_eos=False, return_type="tokens", verbose=False)
    assert torch.equal(made, greedy)
    zeroed = []

    def zero(carry, hook):
        zeroed.append(hook.position)
        return type(carry)(*(torch.zeros_like(x) for x in carry))

    with model.bridge.hooks(fwd_hooks=[(f"{key}.hook_carry", zero)]):
        model.bridge.generate(rows, 3, do_sample=False, stop_at_eos=False, return_type="tokens", verbose=False)
    assert len(zeroed) == 3


@torch.no_grad()
def test_a_hook_that_cannot_fire_is_an_error():
    model, rows = pair("mamba2")[1], tokens(1, 5)
    with pytest.raises(HookError, match=r"hook_stat' does not exist.*hook_state"):
        model.run_with_cache(rows, names_filter="blocks.0.mixer.hook_stat")
    with pytest.raises(HookError, match="need positions"):
        model.run_with_cache(rows, names_filter="blocks.0.mixer.hook_state")
    with pytest.raises(HookError, match="never fired"):
        pair("llama")[1].run_with_hooks(rows, fwd_hooks=[("blocks.0.hook_mlp_in", lambda tensor, hook: None)])
