"""Oracle: transformers' Llama and Mistral attention with the same weights, and a softmax written out token by token."""

import math

import pytest
import torch

from strobe.core.tolerances import assert_close, relative_error
from strobe.models.mixers.attention import Attention, Config, rotate
from strobe.models.run import Run

WIDTH, HEADS, TIME = 12, 3, 11


def build(**options):
    torch.manual_seed(0)
    module = Attention(Config(d_model=WIDTH, n_heads=HEADS, **options)).double()
    module.key = "m"
    return module


def drive(module, x, carry=None, mask=None):
    module.run = Run(carries={} if carry is None else {"m": carry}, mask=mask)
    try:
        return module(x), module.run.after["m"]
    finally:
        module.run = None


def tokens(time=TIME):
    return torch.randn(2, time, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def theirs(window, groups):
    """A Mistral attention layer and its rotary embedding, in float64."""
    from transformers.models.mistral import MistralConfig
    from transformers.models.mistral.modeling_mistral import MistralAttention, MistralRotaryEmbedding

    config = MistralConfig(
        hidden_size=WIDTH,
        num_attention_heads=HEADS,
        num_key_value_heads=groups,
        head_dim=WIDTH // HEADS,
        sliding_window=window,
        max_position_embeddings=64,
        attn_implementation="eager",
    )
    return MistralAttention(config, 0).double().eval(), MistralRotaryEmbedding(config)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("pattern_hooked", [False, True])
def test_equals_mistral(groups, window, pattern_hooked):
    ours, (attention, rotary) = build(n_key_heads=groups, window=window), theirs(window, groups)
    with torch.no_grad():
        for mine, name in ((ours.W_Q, "q"), (ours.W_K, "k"), (ours.W_V, "v"), (ours.W_O, "o")):
            getattr(attention, f"{name}_proj").weight.copy_(mine.weight)
    x, patterns = tokens(), []
    distance = torch.arange(TIME)[:, None] - torch.arange(TIME)
    allowed = (distance >= 0) & (distance < (window or TIME))
    bias = torch.zeros(TIME, TIME, dtype=torch.float64).masked_fill(~allowed, -1e30)
    cos, sin = rotary(x.float(), torch.arange(TIME)[None])
    expected, weights = attention(x, (cos.double(), sin.double()), bias[None, None])
    if pattern_hooked:
        ours.hook_pattern.add_hook(lambda p, hook: patterns.append(p))
    out, _ = drive(ours, x)
    # Their cosines and sines are float32.
    assert_close(out, expected, kind="logits", dtype=torch.float32)
    if pattern_hooked:
        assert_close(patterns[0], weights, kind="logits", dtype=torch.float32)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("groups", [1, 3])
def test_equals_a_softmax_written_out(window, groups):
    """Row by row, among real tokens only, with the relative form of rotary: a score depends on the distance alone."""
    module, x = build(window=window, n_key_heads=groups, rotary_base=100.0), tokens()
    mask = torch.tensor([[c == "1" for c in row] for row in ("00111011101", "11111111000")])
    out, _ = drive(module, x, mask=mask)
    size = WIDTH // HEADS
    for row in range(2):
        real = x[row, mask[row]]
        q, k, v = (w(real).unflatten(-1, (-1, size)) for w in (module.W_Q, module.W_K, module.W_V))
        for t in range(len(real)):
            z = []
            for head in range(HEADS):
                group = head // (HEADS // groups)
                past = range(0 if window is None else max(0, t - window + 1), t + 1)
                scores = torch.stack([turned(q[t, head], t - s) @ k[s, group] / math.sqrt(size) for s in past])
                z.append(sum(p * v[s, group] for p, s in zip(scores.softmax(0), past, strict=True)))
            where = mask[row].nonzero()[t, 0]
            assert_close(out[row, where], module.W_O(torch.cat(z)), kind="scan")


def turned(q, by, base=100.0):
    """`q` turned by the angle of `by` positions, as complex numbers whose parts are the two halves."""
    half = q.shape[0] // 2
    angle = by * torch.tensor([base ** (-i / half) for i in range(half)], dtype=torch.float64)
    z = torch.complex(q[:half], q[half:]) * torch.polar(torch.ones(half, dtype=torch.float64), angle)
    return torch.cat([z.real, z.imag])


def test_rotate_keeps_lengths_and_leaves_position_zero():
    x = tokens().unflatten(-1, (HEADS, -1))
    out = rotate(x, torch.arange(TIME).expand(2, -1), 10000.0)
    assert torch.equal(out[:, 0], x[:, 0])
    assert_close(out.norm(dim=-1), x.norm(dim=-1), kind="scan")
    assert relative_error(out[:, 1:], x[:, 1:]) > 0.1


def test_the_cache_holds_what_was_read():
    module, x = build(), tokens()
    mask = torch.ones(2, TIME, dtype=torch.bool)
    mask[0, :4] = False
    _, cache = drive(module, x, mask=mask)
    assert cache.k.shape[1] == TIME and torch.equal(cache.real, mask) and cache.seen.tolist() == [TIME - 4, TIME]
    assert cache.position[0, 4:].tolist() == list(range(TIME - 4))


def test_a_window_s_cache_does_not_grow():
    module, x = build(window=4), tokens()
    _, cache = drive(module, x)
    assert cache.k.shape[1] == 4 and cache.seen.tolist() == [TIME, TIME]
    out, cache = drive(module, tokens(5), cache)
    assert cache.k.shape[1] == 4
    whole, _ = drive(module, torch.cat([x, tokens(5)], 1))
    assert_close(out, whole[:, TIME:], kind="scan")


def test_hooks_on_queries_and_patterns_change_the_output():
    module, x = build(), tokens()
    plain, _ = drive(module, x)
    module.hook_pattern.add_hook(lambda p, hook: torch.zeros_like(p))
    assert drive(module, x)[0].abs().max() == 0
    module.hook_pattern.remove_hooks()
    for name in ("q", "k", "v", "z"):
        point = getattr(module, f"hook_{name}")
        point.add_hook(lambda t, hook: t * 1.5)
        assert relative_error(drive(module, x)[0], plain) > 1e-3, name
        point.remove_hooks()


def test_a_future_value_reaches_nothing_earlier_while_the_pattern_is_hooked():
    module, x = build(), tokens()
    module.hook_pattern.add_hook(lambda p, hook: None)
    other = x.clone()
    other[:, 6:] += 5
    a, b = drive(module, x)[0], drive(module, other)[0]
    assert torch.equal(a[:, :6], b[:, :6]) and relative_error(a[:, 6:], b[:, 6:]) > 0.1
