"""Oracle: the full forward of the same transformers release on tiny random models of the real classes.

Never its cached decode, which is wrong in places. States are held against our own mixer one token at a time in float64.
"""

import copy
import functools
import tempfile

import pytest
import torch
import transformers as tf

from strobe.core.errors import HookError
from strobe.core.tolerances import assert_close, relative_error
from strobe.models.hooked import StateEdit
from strobe.models.huggingface import HuggingFaceLM, load_huggingface
from strobe.models.huggingface.loading import families, wrap
from strobe.models.run import Run, running

VOCAB, TIME, CUT = 61, 23, 9
COMMON = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, **COMMON}
HEADED = {**SMALL, "head_dim": 8}
DELTA = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 7,
    "linear_value_head_dim": 9,
    **HEADED,
}
MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 5, "time_step_rank": 3, **COMMON}
MAMBA2 = {"num_heads": 8, "head_dim": 8, "state_size": 6, "n_groups": 2, "chunk_size": 16}
HYBRID_MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 6, "mamba_n_groups": 2, "mamba_chunk_size": 16}
EXPERTS = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4}
MODELS = {
    "mamba": (tf.MambaForCausalLM, tf.MambaConfig(**MAMBA)),
    "falcon_mamba": (tf.FalconMambaForCausalLM, tf.FalconMambaConfig(**MAMBA, use_bias=True, use_conv_bias=False)),
    "mamba2": (tf.Mamba2ForCausalLM, tf.Mamba2Config(hidden_size=32, num_hidden_layers=2, **MAMBA2, **COMMON)),
    "jamba": (
        tf.JambaForCausalLM,
        tf.JambaConfig(
            num_hidden_layers=3,
            attn_layer_period=3,
            attn_layer_offset=1,
            num_experts=4,
            mamba_d_state=5,
            mamba_dt_rank=3,
            expert_layer_period=2,
            mamba_proj_bias=True,
            **SMALL,
        ),
    ),
    "bamba": (
        tf.BambaForCausalLM,
        tf.BambaConfig(num_hidden_layers=3, attn_layer_indices=[1], mamba_conv_bias=False, **HYBRID_MAMBA2, **SMALL),
    ),
    "nemotron_h": (
        tf.NemotronHForCausalLM,
        tf.NemotronHConfig(
            layers_block_type=["linear_attention", "moe", "full_attention", "linear_attention", "mlp"],
            mamba_num_heads=8,
            mamba_head_dim=8,
            ssm_state_size=6,
            n_groups=2,
            chunk_size=16,
            n_routed_experts=4,
            moe_intermediate_size=16,
            moe_shared_expert_intermediate_size=16,
            **HEADED,
        ),
    ),
    "olmo_hybrid": (
        tf.OlmoHybridForCausalLM,
        tf.OlmoHybridConfig(
            layer_types=["linear_attention", "linear_attention", "full_attention", "linear_attention"],
            **{k: v for k, v in DELTA.items() if k != "head_dim"},
        ),
    ),
    "qwen3_next": (tf.Qwen3NextForCausalLM, tf.Qwen3NextConfig(num_experts_per_tok=2, **EXPERTS, **DELTA)),
    "qwen3_5_text": (tf.Qwen3_5ForCausalLM, tf.Qwen3_5TextConfig(**DELTA)),
    "recurrent_gemma": (
        tf.RecurrentGemmaForCausalLM,
        tf.RecurrentGemmaConfig(num_hidden_layers=3, lru_width=40, attention_window_size=6, **SMALL),
    ),
    "rwkv": (
        tf.RwkvForCausalLM,
        tf.RwkvConfig(hidden_size=32, attention_hidden_size=24, num_hidden_layers=3, rescale_every=1, **COMMON),
    ),
    "gpt2": (tf.GPT2LMHeadModel, tf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, **COMMON)),
    "gpt_neox": (
        tf.GPTNeoXForCausalLM,
        tf.GPTNeoXConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, **COMMON),
    ),
    "llama": (tf.LlamaForCausalLM, tf.LlamaConfig(num_hidden_layers=2, **HEADED)),
    "mistral": (tf.MistralForCausalLM, tf.MistralConfig(num_hidden_layers=2, sliding_window=6, **HEADED)),
    "qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config(num_hidden_layers=2, **SMALL)),
    "qwen3": (tf.Qwen3ForCausalLM, tf.Qwen3Config(num_hidden_layers=2, **HEADED)),
    "gemma": (tf.GemmaForCausalLM, tf.GemmaConfig(num_hidden_layers=2, **HEADED)),
    "gemma2": (
        tf.Gemma2ForCausalLM,
        tf.Gemma2Config(num_hidden_layers=2, sliding_window=6, query_pre_attn_scalar=8, **HEADED),
    ),
}
RECURRENT = [
    "mamba", "falcon_mamba", "jamba", "mamba2", "bamba", "nemotron_h", "qwen3_next",
    "qwen3_5_text", "olmo_hybrid", "recurrent_gemma", "rwkv",
]  # fmt: skip
every = pytest.mark.parametrize("name", MODELS)
recurrent = pytest.mark.parametrize("name", RECURRENT)
tf.logging.disable_progress_bar()


def make(name):
    """A transformers model with weights large enough that every part of it matters."""
    kind, config = MODELS[name]
    torch.manual_seed(1)
    model = kind(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "A_log" in key:
                # Slow enough that the state matters many tokens later.
                parameter.uniform_(-4, -1)
            elif parameter.ndim < 2 or "conv" in key:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
        if name == "rwkv":
            # Makes the residual stream large beside the last norm's epsilon, which transformers' rescaling changes.
            model.rwkv.blocks[0].pre_ln.weight.mul_(30)
    return model


@functools.cache
def pair(name, dtype=torch.float32):
    """(transformers' model, ours loaded from what it saved)."""
    theirs = make(name)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        return theirs, load_huggingface(folder, dtype=dtype)


def tokens(*shape, seed=0):
    return torch.randint(3, VOCAB, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def oracle(name, rows):
    return pair(name)[0](rows, use_cache=False).logits


def padded(rows, lengths, side):
    ids, mask = torch.zeros_like(rows), torch.zeros(rows.shape, dtype=torch.bool)
    for i, length in enumerate(lengths):
        where = slice(rows.shape[1] - length, None) if side == "left" else slice(0, length)
        ids[i, where], mask[i, where] = rows[i, :length], True
    return ids, mask


def recurrent_layers(model):
    return [n for n in model.mixers if n.endswith(".mixer")]


def test_every_family_is_here():
    assert set(MODELS) == set(families.names())


@every
@torch.no_grad()
def test_logits_equal_transformers(name):
    rows = tokens(2, TIME)
    assert_close(pair(name)[1](rows), oracle(name, rows), kind="logits")


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
def test_three_pieces_equal_one(name):
    model, rows = pair(name)[1], tokens(2, TIME)
    first, state = model(rows[:, :CUT], return_type="state")
    second, state = model(rows[:, CUT : CUT + 1], state=state, return_type="state")
    third = model(rows[:, CUT + 1 :], state=state)
    assert_close(torch.cat([first, second, third], 1), oracle(name, rows), kind="logits")


@every
@torch.no_grad()
def test_going_on_leaves_the_state_as_it_was(name):
    model, rows = pair(name)[1], tokens(2, TIME)
    state = model.state_after(rows[:, :CUT])
    kept = state.clone()
    once, _ = model(rows[:, CUT:], state=state, return_type="state")
    model(tokens(2, TIME, seed=3))
    assert torch.equal(model(rows[:, CUT:], state=state), once)
    for key, carry in kept.carries.items():
        assert all(torch.equal(a, b) for a, b in zip(carry, state.carries[key], strict=True))


@every
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_padding_changes_no_real_token_even_when_going_on(name, side):
    model, rows, lengths = pair(name)[1], tokens(2, TIME), [TIME, 14]
    ids, mask = padded(rows, lengths, side)
    logits, state = model(ids, mask=mask, return_type="state")
    more = tokens(2, 7, seed=1)
    after, state = model(more, state=state, return_type="state")
    last = model(more[:, :1], state=state)
    for i, length in enumerate(lengths):
        whole = oracle(name, torch.cat([rows[i : i + 1, :length], more[i : i + 1], more[i : i + 1, :1]], 1))
        ours = torch.cat([logits[i][mask[i]], after[i], last[i]])
        assert_close(ours, whole[0], kind="logits")


@every
@torch.no_grad()
def test_greedy_generation_is_the_argmax_of_full_forwards(name):
    model, rows = pair(name)[1], tokens(2, 5)
    made = model.generate(rows, 6, temperature=0.0)
    for _ in range(6):
        rows = torch.cat([rows, oracle(name, rows)[:, -1:].argmax(-1)], 1)
    assert torch.equal(made, rows)


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


@recurrent
@torch.no_grad()
def test_captured_states_equal_single_steps_in_float64(name):
    model, rows = pair(name)[1], tokens(2, TIME)
    positions = [0, 4, CUT, -1]
    names = [n for m in model.mixers for n in model.hook_dict if n.startswith((f"{m}.hook_state_", f"{m}.hook_in"))]
    _, cache = model.run_with_cache(rows, names_filter=names, states=positions)
    for key, mixer in model.mixers.items():
        exact = copy.deepcopy(mixer).double()
        carry = exact.init_carry(2, torch.float64, torch.device("cpu"))
        steps = []
        for x in cache[f"{key}.hook_in"].double().split(1, 1):
            exact.run = Run(carries={key: carry}, backend="reference")
            exact(x)
            carry = exact.run.after[key]
            steps.append(carry)
        for field in mixer.Carry._fields:
            expected = torch.stack([getattr(steps[p], field) for p in positions], 1)
            assert_close(cache[f"{key}.hook_state_{field}"], expected, kind="logits", dtype=torch.float32)


@recurrent
@torch.no_grad()
def test_an_edit_moves_what_follows_as_if_done_by_hand(name):
    model, rows = pair(name)[1], tokens(2, TIME)
    plain = model(rows)
    for key in recurrent_layers(model)[:2]:
        layer, field = int(key.split(".")[1]), model.mixers[key].memory
        edit = StateEdit(layer=layer, position=CUT, kind="scale", value=-0.5)
        edited = model.run_with_edits(rows, [edit])

        def halve(carry, hook, field=field):
            return carry._replace(**{field: getattr(carry, field) * -0.5})

        hooked = model.run_with_hooks(rows, fwd_hooks=[(f"{key}.hook_carry", halve)], states=[CUT])
        state = model.state_after(rows[:, : CUT + 1])
        carry = state.layers[layer].carry
        state.layers[layer].carry = carry._replace(**{field: getattr(carry, field) * -0.5})
        by_hand = model(rows[:, CUT + 1 :], state=state)
        assert_close(edited[:, CUT + 1 :], by_hand, kind="logits")
        assert_close(hooked[:, CUT + 1 :], by_hand, kind="logits")
        assert_close(edited[:, : CUT + 1], plain[:, : CUT + 1], kind="logits")
        assert relative_error(edited[:, CUT + 1], plain[:, CUT + 1]) > 1e-4


@recurrent
def test_the_gradient_of_a_carry_is_its_directional_difference(name):
    model, rows = pair(name, torch.float64)[1], tokens(2, TIME)
    state = model.state_after(rows[:, :CUT])
    key = recurrent_layers(model)[0]
    layer, field = int(key.split(".")[1]), model.mixers[key].memory
    carry = state.layers[layer].carry
    weight = torch.randn(2, TIME - CUT, VOCAB, dtype=torch.float64)

    def score(memory):
        state.layers[layer].carry = carry._replace(**{field: memory})
        return (model(rows[:, CUT:], state=state) * weight).sum()

    memory = getattr(carry, field).clone().requires_grad_(True)
    (grad,) = torch.autograd.grad(score(memory), memory)
    # Norms of transformers compute in float32 whatever the model's dtype: a smaller step measures their rounding. In
    # qwen3_next a larger one changes which experts are chosen.
    size = 1e-5 if name == "qwen3_next" else 1e-3
    step = size * grad * (memory.detach().norm() / grad.norm())
    with torch.no_grad():
        slope = (score(memory + step) - score(memory - step)) / 2
    assert relative_error((grad * step).sum().view(1), slope.view(1)) < 1e-2


@recurrent
@torch.no_grad()
def test_tensors_are_shared_and_not_copied(name):
    theirs = make(name)
    before = {parameter.data_ptr(): key for key, parameter in theirs.named_parameters()}
    model = wrap(theirs, families.get(name))
    assert all(parameter.data_ptr() in before for parameter in model.parameters())
    assert {key for key, _ in model.named_parameters()} == set(before.values())
    assert isinstance(model, HuggingFaceLM)
    flags = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    assert all(flags.values())


@torch.no_grad()
def test_a_call_of_recurrent_gemma_leaves_nothing_behind():
    model, rows = pair("recurrent_gemma")[1], tokens(2, TIME)
    first = model(rows)
    model(tokens(2, 1, seed=5))
    model.bridge(tokens(2, 1, seed=6))
    assert torch.equal(model(rows), first)
    assert torch.equal(model(rows[:, :1]), first[:, :1]) or relative_error(model(rows[:, :1]), first[:, :1]) < 1e-6


@torch.no_grad()
def test_rwkv_weights_stay_those_of_the_checkpoint():
    theirs = make("rwkv")
    saved = {key: parameter.clone() for key, parameter in theirs.named_parameters()}
    model = wrap(theirs, families.get("rwkv"))
    rows = tokens(2, TIME)
    _, cache = model.run_with_cache(rows)
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter.flatten(), saved[key].flatten()), key
    # transformers in evaluation halves the residual stream after every layer of this configuration.
    halved = make("rwkv")(rows, output_hidden_states=True, use_cache=False).hidden_states
    assert_close(cache["blocks.1.hook_resid_post"], 4 * halved[1], kind="logits")


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


@torch.no_grad()
def test_states_of_attention_are_key_value_caches_that_must_agree():
    model, rows = pair("llama")[1], tokens(2, TIME)
    state = model.state_after(rows)
    assert list(state.carries) == ["blocks.0.mixer", "blocks.1.mixer"]
    assert state.layers[0].carry.k.shape == (2, TIME, 2, 8)
    with pytest.raises(ValueError, match="must have seen the same tokens"):
        model(rows, state=state.splice(model.state_after(rows[:, :5]), layers=[1]))
    both = state.splice(model.state_after(tokens(2, TIME, seed=9)), layers=[0, 1])
    swapped = oracle("llama", torch.cat([tokens(2, TIME, seed=9), rows], 1))[:, TIME:]
    assert_close(model(rows, state=both), swapped, kind="logits")


@torch.no_grad()
def test_a_window_keeps_only_what_it_can_reach():
    state = pair("mistral")[1].state_after(tokens(2, TIME))
    assert state.layers[0].carry.k.shape[1] == 6


def test_gpt2_has_no_position_beyond_its_table():
    with pytest.raises(ValueError, match=r"position 64 was asked of .* 64 positions"):
        pair("gpt2")[1](tokens(1, 65))


@torch.no_grad()
def test_a_saved_state_goes_on(tmp_path):
    from strobe.models.state import ModelState

    model, rows = pair("qwen3_next")[1], tokens(2, TIME)
    model.state_after(rows[:, :CUT]).save(tmp_path / "state.safetensors")
    state = ModelState.load(tmp_path / "state.safetensors", model)
    assert_close(model(rows[:, CUT:], state=state), oracle("qwen3_next", rows)[:, CUT:], kind="logits")
