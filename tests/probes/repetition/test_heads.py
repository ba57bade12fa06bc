"""Oracle: closed forms (uniform attention, a perfect head), weights read by name, a model built to look back.

Further: a copying head and its opposite, by construction.
"""

from functools import partial

import numpy as np
import pytest
import torch
import transformers as tf
from cutting import stopped

from strobe.core.result import load_result
from strobe.models import HookedLM, ModelConfig
from strobe.models.huggingface import load_huggingface
from strobe.probes.repetition import head_scores
from strobe.probes.repetition.copying import copying_scores, ov_circuits
from strobe.probes.repetition.heads import pattern_scores

OPTIONS = {
    "mamba2": {"heads": 3, "head_dim": 4, "state": 5},
    "mamba": {"inner": 8, "state": 3, "rank": 2},
    "gated_deltanet": {"heads": 2, "key": 4, "value": 4},
    "mingru": {"hidden": 5},
    "rwkv4": {"hidden": 9},
    "gru": {"hidden": 12},
    "attention": {"n_heads": 4, "n_key_heads": 2},
}
tf.logging.disable_progress_bar()


def small(*layers: str) -> HookedLM:
    config = ModelConfig(
        d_model=16, d_vocab=23, layers=layers, mixer_options={n: OPTIONS[n] for n in set(layers)}, mlp="none",
        tie_embeddings=False,
    )  # fmt: skip
    model = HookedLM(config, name="small").eval().requires_grad_(False)
    torch.manual_seed(2)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_uniform_attention_and_a_perfect_head():
    n = 16
    uniform = torch.ones(2 * n, 2 * n, dtype=torch.float64).tril()
    uniform = uniform / uniform.sum(-1, keepdim=True)
    assert float(pattern_scores(uniform)[0]) == pytest.approx(0.042360, abs=1e-6)
    perfect = torch.zeros(3, 2 * n, 2 * n)
    perfect[0, range(n, 2 * n), range(1, n + 1)] = 1
    perfect[1, range(1, 2 * n), range(2 * n - 1)] = 1
    perfect[2, range(n, 2 * n), range(n)] = 1
    torch.testing.assert_close(pattern_scores(perfect), torch.eye(3))
    with pytest.raises(ValueError, match="even number"):
        pattern_scores(torch.zeros(7, 7))


def test_every_linear_mixer_has_heads_and_the_others_a_reason(tmp_path):
    model = small("mamba2", "mamba", "gated_deltanet", "mingru", "rwkv4", "gru", "attention")
    result = head_scores(model, length=9, n_rows=3)
    count = [int((result.layers == i).sum()) for i in range(7)]
    assert count == [3, 8, 2, 5, 9, 0, 4]
    assert list(result.notes) == ["5"] and "GRU is not linear" in result.notes["5"]
    assert (result.scores >= 0).all() and (result.scores <= 1).all() and (result.scores > 0).any(1).all()
    assert np.isfinite(result.copying).sum() == 4
    assert load_result(result.save(tmp_path / "h.safetensors")) == result
    figure = result.figure("previous")
    shown = np.concatenate([t.y for t in figure.data if t.name in ("attention", "effective attention")])
    assert sorted(shown) == pytest.approx(sorted(result.scores[:, 1]))
    assert figure.data[0].name == "tokens that do not repeat"
    with pytest.raises(ValueError, match="score 'x'"):
        result.figure("x")


def test_effective_attention_of_a_memory_that_forgets_at_once_is_on_the_token_itself():
    model = small("mingru")
    # z = 1: every token overwrites the carry, so nothing earlier is read.
    gate = dict(model.blocks[0].mixer.named_parameters())
    assert any("z" in name for name in gate), list(gate)
    before = head_scores(model, length=9, n_rows=2).scores[:, 1]
    for name, parameter in gate.items():
        if name.endswith("z.bias"):
            parameter.fill_(50.0)
    after = head_scores(model, length=9, n_rows=2).scores[:, 1]
    assert before.min() > 0.02 and after.max() < 1e-6


def test_effective_attention_counts_by_its_share_of_each_read():
    model = small("mamba2")
    mixer, n = model.blocks[0].mixer, 5
    result = head_scores(model, length=n, n_rows=1, copying=False, seed=4)
    tokens = torch.randint(23, (2, 1, n), generator=torch.Generator().manual_seed(4))[0].repeat(1, 2)
    _, cache = model.run_with_cache(tokens, names_filter="blocks.0.hook_mixer_in")
    x = cache["blocks.0.hook_mixer_in"]
    signals = mixer.inputs(mixer.project(x, mixer.init_carry(1, x.dtype, x.device), None)[0])
    E = mixer.family.attention(signals)[0]
    for head in range(3):
        shares = [[abs(float(E[head, t, s])) for s in range(t + 1)] for t in range(2 * n)]
        previous = np.mean([row[t - 1] / sum(row) for t, row in enumerate(shares) if t])
        duplicate = np.mean([shares[t][t - n] / sum(shares[t]) for t in range(n, 2 * n)])
        assert result.scores[head, 1:].tolist() == pytest.approx([previous, duplicate], rel=1e-4)


def test_the_ov_circuit_is_that_of_the_weights():
    model = small("attention", "attention")
    mixer = model.blocks[1].mixer
    found = ov_circuits(model, 1, 4)
    v = mixer.W_V.weight.view(2, 4, 16).repeat_interleave(2, 0)
    o = mixer.W_O.weight.view(16, 4, 4)
    expected = torch.stack([v[h].T @ o[:, h].T for h in range(4)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_copying_head_scores_one_and_its_opposite_minus_one():
    model = small("attention")
    model.unembed.weight.copy_(model.embed.weight)
    mixer = model.blocks[0].mixer
    eye = torch.eye(16)
    mixer.W_V.weight.copy_(eye[:8])
    mixer.W_O.weight.zero_()
    mixer.W_O.weight[:4, :4] = torch.eye(4)
    mixer.W_O.weight[:4, 4:8] = -torch.eye(4)
    mixer.W_O.weight[:, 8:] = torch.randn(16, 8)
    scores = copying_scores(model, 0, 4)
    assert scores[:2] == pytest.approx([1, -1], abs=1e-4)
    # Of the whole token-to-token matrix, which is as wide as the vocabulary.
    model.unembed.weight.copy_(torch.randn(23, 16))
    scores = copying_scores(model, 0, 4)
    circuit = model.W_E.double() @ ov_circuits(model, 0, 4)[2].double() @ model.W_U.double()
    values = torch.linalg.eigvals(circuit)
    assert -0.99 < scores[2] < 0.99
    assert scores[2] == pytest.approx(float(values.real.sum() / values.abs().sum()), abs=1e-3)


def looks_back(period: int) -> HookedLM:
    """A model whose one head attends `period - 1` back by a pattern put there, and copies what it sees."""
    config = ModelConfig(
        d_model=32, d_vocab=23, layers=("attention",), mixer_options={"attention": {"n_heads": 1}}, mlp="none"
    )
    model = HookedLM(config, name="looks back").eval().requires_grad_(False)
    with torch.no_grad():
        model.embed.weight.zero_()
        model.embed.weight[:, :23] = torch.eye(23)
        model.blocks[0].mixer.W_V.weight.copy_(torch.eye(32))
        model.blocks[0].mixer.W_O.weight.copy_(40 * torch.eye(32))
    return model


def test_an_induction_head_is_found_and_lowers_the_loss_of_the_second_copy():
    n = 9
    model = looks_back(n)

    def induct(pattern, hook):
        new = torch.eye(pattern.shape[-1]).expand_as(pattern).clone()
        for i in range(n, pattern.shape[-1]):
            new[..., i, i], new[..., i, i - n + 1] = 0, 1
        return new

    with model.hooks(fwd_hooks=[("blocks.0.mixer.hook_pattern", induct)]):
        result = head_scores(model, length=n, n_rows=4, copying=False)
    assert result.scores[0].tolist() == [1.0, 0.0, 0.0]
    assert result.gap > 3 and abs(result.control_gap) < 0.5 * result.gap
    assert result.loss[n:].max() < 0.1
    at = [int(x) for x in result.loss_figure().data[1].x]
    assert at == list(range(1, 2 * n))


def test_loss_is_that_of_the_tokens_after_each():
    model = small("gru")
    result = head_scores(model, length=5, n_rows=1, seed=3)
    draw = torch.randint(23, (2, 1, 5), generator=torch.Generator().manual_seed(3))

    def losses(*halves):
        tokens = torch.cat(halves, 1)
        log_p = model(tokens).double().log_softmax(-1)
        return [-float(log_p[0, t, tokens[0, t + 1]]) for t in range(9)]

    expected, control = losses(draw[0], draw[0]), losses(draw[1], draw[0])
    assert result.control_loss.tolist() == pytest.approx(control, rel=1e-5)
    assert result.control_gap == pytest.approx(np.mean(expected[:4]) - np.mean(control[5:]), rel=1e-4)
    assert result.loss.tolist() == pytest.approx(expected, rel=1e-5)
    assert result.gap == pytest.approx(np.mean(expected[:4]) - np.mean(expected[5:]), rel=1e-5)
    assert result.scores.shape == (0, 3) and result.figure().data is not None


@pytest.mark.parametrize("kind", ["gpt2", "llama", "mamba2"])
def test_hugging_face_models_have_heads_too(kind, tmp_path):
    common = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = {
        "gpt2": tf.GPT2Config(n_embd=32, n_head=4, n_layer=2, **common),
        "llama": tf.LlamaConfig(
            hidden_size=32,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            num_hidden_layers=2,
            **common,
        ),
        "mamba2": tf.Mamba2Config(
            hidden_size=32, num_heads=4, head_dim=16, state_size=8, n_groups=1, num_hidden_layers=2, **common
        ),
    }[kind]
    torch.manual_seed(1)
    theirs = tf.AutoModelForCausalLM.from_config(config)
    for parameter in theirs.parameters():
        # Biases begin at 0.
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, dtype=torch.float32)
    result = head_scores(model, length=7, n_rows=2)
    assert result.layers.tolist() == [0] * 4 + [1] * 4 and not result.notes
    if kind == "mamba2":
        assert result.kinds == ["effective attention"] * 8
        return
    assert np.isfinite(result.copying).all()
    found = ov_circuits(model, 1, 4)
    block = (theirs.transformer.h if kind == "gpt2" else theirs.model.layers)[1]
    if kind == "gpt2":
        v = block.attn.c_attn.weight[:, 64:].view(32, 4, 8)
        o = block.attn.c_proj.weight.view(4, 8, 32)
        expected = torch.einsum("ihd,hdo->hio", v, o)
    else:
        v = block.self_attn.v_proj.weight.view(2, 8, 32).repeat_interleave(2, 0)
        expected = torch.einsum("hdi,ohd->hio", v, block.self_attn.o_proj.weight.view(32, 4, 8))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-5)


def test_no_tokens_are_refused():
    with pytest.raises(ValueError, match="2 tokens at least"):
        head_scores(small("gru"), length=1)


COMMON = {
    "vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "hidden_size": 32,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
}  # fmt: skip
DELTA = {
    "num_hidden_layers": 4, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 7,
    "linear_value_head_dim": 9, "head_dim": 8, **COMMON,
}  # fmt: skip
# (configuration, layer of the attention, what the gate of a query of zeros is)
BETWEEN = {
    "recurrent_gemma": (
        tf.RecurrentGemmaConfig(num_hidden_layers=3, lru_width=40, attention_window_size=6, **COMMON), 2, 1.0
    ),
    "qwen3_next": (
        tf.Qwen3NextConfig(
            num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=4, **DELTA
        ), 3, 0.5,
    ),
    "qwen3_5_text": (tf.Qwen3_5TextConfig(**DELTA), 3, 0.5),
    "jamba": (
        tf.JambaConfig(
            num_hidden_layers=3, attn_layer_period=3, attn_layer_offset=1, num_experts=4, mamba_d_state=5,
            mamba_dt_rank=3, expert_layer_period=2, **COMMON,
        ), 1, 1.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BETWEEN)
def test_an_attention_between_recurrent_layers_has_its_pattern_and_its_circuit(kind, tmp_path):
    """The pattern against transformers' own eager attention, the circuit against the weights."""
    config, layer, gate = BETWEEN[kind]
    torch.manual_seed(1)
    theirs = tf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in theirs.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, dtype=torch.float32)
    block = theirs.model.layers[layer]
    attention = block.temporal_block if kind == "recurrent_gemma" else block.self_attn
    weights = []
    attention.register_forward_hook(lambda _m, _a, out: weights.append(out[1].detach()))
    tokens = torch.randint(3, 61, (2, 14), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = theirs(tokens).logits
    name = next(n for n in model.hook_dict if n.endswith("hook_pattern") and f"blocks.{layer}." in n)
    watched, cache = model.run_with_cache(tokens, names_filter=name)
    torch.testing.assert_close(cache[name], weights[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(watched, logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model(tokens), watched, rtol=1e-3, atol=1e-4)

    result = head_scores(model, length=7, n_rows=2)
    assert [k for k, at in zip(result.kinds, result.layers, strict=True) if at == layer] == ["attention"] * 4
    assert not result.notes and sorted(set(result.layers)) == list(range(model.cfg.n_layers))
    assert np.isfinite(result.copying[result.layers == layer]).all() and np.isfinite(result.scores).all()
    v = attention.v_proj.weight.view(2, 8, 32).repeat_interleave(2, 0)
    expected = gate * torch.einsum("hdi,ohd->hio", v, attention.o_proj.weight.view(32, 4, 8))
    torch.testing.assert_close(ov_circuits(model, layer, 4), expected.detach(), rtol=1e-3, atol=1e-5)


def test_a_run_that_is_stopped_has_the_blocks_that_were_scored():
    model = small("gru", "attention", "mamba2")
    whole = head_scores(model, length=5, n_rows=2, seed=3)
    ask = partial(head_scores, model, length=5, n_rows=2, seed=3)
    assert stopped(ask, lambda done, _: done == 0) is None
    so_far = stopped(ask, lambda done, _: done == 2)
    here = whole.layers < 2
    assert here.sum() == len(so_far.layers) and not here.all()
    for name in ("scores", "control", "copying"):
        np.testing.assert_array_equal(getattr(so_far, name), getattr(whole, name)[here])
    np.testing.assert_array_equal(so_far.loss, whole.loss)
    assert np.isfinite(so_far.copying).all() and list(so_far.notes) == ["0"]
    assert so_far.partial == "cut short after 2 of 3 blocks" and not whole.partial
    assert so_far.partial in so_far.summary() and so_far.partial in so_far.figure().layout.title.subtitle.text
