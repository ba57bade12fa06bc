"""Oracle: the same intervention by strobe's own hooks, against nnsight's and TransformerLens's on a wrapped model."""

import pytest
import torch
import transformers as tf

from strobe.core.tolerances import assert_close, relative_error
from strobe.models.huggingface.loading import families, wrap

VOCAB, TIME = 31, 9
COMMON = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "pad_token_id": 0}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = tf.Mamba2Config(num_heads=4, head_dim=8, state_size=5, n_groups=2, **COMMON)
    return wrap(tf.Mamba2ForCausalLM(config).eval(), families.get("mamba2"))


@pytest.fixture(scope="module")
def rows():
    return torch.randint(3, VOCAB, (1, TIME), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_nnsight_reads_and_writes_as_our_hooks_do(model, rows):
    from nnsight import NNsight

    plain, name = model(rows), "blocks.1.mixer.hook_read"
    wrapped = NNsight(model)
    with wrapped.trace(rows):
        read = wrapped.bridge.blocks[1].mixer.hook_read.output.save()
        out = wrapped.output.save()
    assert torch.equal(out, plain)
    _, cache = model.run_with_cache(rows, names_filter=name)
    assert torch.equal(read, cache[name])
    with wrapped.trace(rows):
        wrapped.bridge.blocks[1].mixer.hook_read.output[:] = 0
        edited = wrapped.output.save()
    ours = model.run_with_hooks(rows, fwd_hooks=[(name, lambda x, hook: torch.zeros_like(x))])
    assert_close(edited, ours, kind="logits")
    # A thousand times rounding: the rest of the model carries most of the output.
    assert relative_error(edited, plain) > 1e-4
    assert torch.equal(model(rows), plain)


@torch.no_grad()
def test_activation_patching_equals_patching_by_hand(model, rows):
    from transformer_lens.patching import get_act_patch_resid_pre

    corrupted = rows.clone()
    corrupted[:, 2] = 3 + (corrupted[:, 2] - 2) % (VOCAB - 3)
    _, clean = model.run_with_cache(rows)

    def metric(logits):
        return (logits[:, -1] * torch.arange(VOCAB)).sum()

    got = get_act_patch_resid_pre(model, corrupted, clean, metric)
    assert got.shape == (2, TIME)
    for layer in range(2):
        for position in (2, 5):
            name = f"blocks.{layer}.hook_resid_pre"

            def patch(resid, hook, name=name, position=position):
                new = resid.clone()
                new[:, position] = clean[name][:, position]
                return new

            expected = metric(model.run_with_hooks(corrupted, fwd_hooks=[(name, patch)]))
            assert abs(float(got[layer, position]) - expected.item()) < 1e-4 * max(1.0, abs(expected.item()))
    # What differs at layer 0 brings back the clean run; the same token a layer later does not.
    assert_close(got[0, 2], metric(model(rows)).float(), kind="logits", dtype=torch.float32)
    assert relative_error(got[1, 2], got[0, 2]) > 1e-6
