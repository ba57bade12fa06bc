"""Oracle: the model's own logits, native and Hugging Face's full forward.

The readout of the last residual has to be them, and one that is not has to be refused.
"""

from typing import Any

import pytest
import torch
from torch import nn

from strobe.probes.lens.readout import Readout, model_readout, residuals

TOKENS = torch.arange(18).reshape(2, 9)


def test_readout_of_the_last_residual_is_the_native_models_logits(native: Any) -> None:
    logits, resid = residuals(native, TOKENS)
    assert len(resid) == 3
    assert torch.equal(model_readout(native)(resid[-1]), logits)
    assert torch.equal(logits, native(TOKENS))


def test_residuals_are_before_the_first_block_and_after_each(toy: Any) -> None:
    embedding, unembedding = torch.randn(20, 6), torch.randn(20, 6)
    model = toy(embedding, [lambda x: x + 1, lambda x: x * 2, lambda x: x - 5], unembedding)
    _, resid = residuals(model, TOKENS)
    x = embedding[TOKENS]
    for found, expected in zip(resid, [x, x + 1, (x + 1) * 2, (x + 1) * 2 - 5], strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize(
    "after", [lambda x: 1.02 * x, lambda x: 3 * torch.tanh(x / 3), lambda x: x + torch.arange(20) / 50]
)
def test_a_model_that_changes_its_logits_unsaid_is_refused(toy: Any, after: Any) -> None:
    model = toy(torch.randn(20, 6), [lambda x: x], torch.randn(20, 6), nn.RMSNorm(6), after=after)
    with pytest.raises(ValueError, match=r"own logits from the last residual; it is .* away"):
        model_readout(model)


def test_readout_gives_gradients_to_h_and_none_to_the_model(native: Any) -> None:
    h = torch.randn(3, 16, requires_grad=True)
    model_readout(native)(h).logsumexp(-1).sum().backward()
    assert h.grad is not None and float(h.grad.abs().sum()) > 0
    assert all(p.grad is None for p in native.parameters())


def test_the_models_mode_is_left_as_it_was(native: Any) -> None:
    native.train()
    native.blocks[0].eval()
    model_readout(native)
    assert native.training and native.blocks[1].training and not native.blocks[0].training


def test_half_precision_weights_are_read_out_in_float32(native: Any) -> None:
    half = native.to(torch.bfloat16)
    read = model_readout(half)
    h = torch.randn(5, 16)
    rms = h / (h.pow(2).mean(-1, keepdim=True) + half.ln_final.eps).sqrt()
    expected = (rms * half.ln_final.weight.float()) @ half.unembed.weight.float().T
    assert read(h).dtype == torch.float32
    torch.testing.assert_close(read(h), expected, rtol=1e-5, atol=1e-5)


def test_a_model_without_a_readout_is_refused(native: Any) -> None:
    del native.unembed
    with pytest.raises(ValueError, match="has no 'unembed'"):
        Readout(native)


def test_the_hash_tells_readouts_apart(native: Any) -> None:
    before = Readout(native).hash
    with torch.no_grad():
        native.blocks[0].mlp.W_in.weight.add_(1)
    assert Readout(native).hash == before
    with torch.no_grad():
        native.ln_final.weight[0] += 1e-3
    assert Readout(native).hash != before


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mamba2"])
def test_readout_of_the_last_residual_is_the_hugging_face_models_logits(family: str, tmp_path: Any) -> None:
    from strobe.models import load

    theirs = _tiny(family)
    theirs.save_pretrained(tmp_path)
    model = load(tmp_path)
    logits, resid = residuals(model, TOKENS)
    with torch.no_grad():
        expected = theirs(TOKENS).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model_readout(model)(resid[-1]), expected, rtol=1e-4, atol=1e-5)
    assert len(resid) == 3


def _tiny(family: str) -> Any:
    import transformers as hf

    torch.manual_seed(0)
    attention = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32}
    made = {
        # A final LayerNorm with a bias; a soft cap that bites; a recurrence at the seam.
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=1, eos_token_id=2)
        ),
        "gemma2": lambda: hf.Gemma2ForCausalLM(
            hf.Gemma2Config(
                vocab_size=60,
                hidden_size=16,
                num_hidden_layers=2,
                final_logit_softcapping=0.05,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                **attention,
            )
        ),
        "mamba2": lambda: hf.Mamba2ForCausalLM(
            hf.Mamba2Config(
                vocab_size=60, hidden_size=16, num_hidden_layers=2, num_heads=4, head_dim=8, state_size=4, n_groups=1
            )
        ),
    }[family]()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            # Norms and their biases away from one and zero, so that leaving them out shows.
            if "norm" in name or ".ln_" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made.eval()
