"""Oracle: the carries and reads that the transplanted model itself returns, on tiny random models of real classes."""

import pytest
import torch
import transformers as tf

from strobe.models.huggingface import load_huggingface
from strobe.probes.cells import cell_text, gate_saturation, token_importance, transition_view
from strobe.probes.cells.units import sites_of

COMMON = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_hidden_layers": 2}
PROMPT = [5, 9, 44, 3, 17]
tf.logging.disable_progress_bar()


def loaded(kind, config, folder):
    torch.manual_seed(1)
    kind(config).eval().save_pretrained(folder)
    return load_huggingface(folder, dtype=torch.float32)


def test_a_recurrent_model_behind_the_seam(tmp_path):
    config = tf.MambaConfig(hidden_size=32, state_size=5, time_step_rank=3, **COMMON)
    model = loaded(tf.MambaForCausalLM, config, tmp_path)
    mixer = model.mixers["blocks.1.mixer"]
    field = mixer.memory
    shown = cell_text(model, PROMPT, 1, field, 7)
    for t in range(5):
        carry = model.state_after(torch.tensor([PROMPT[: t + 1]])).layers[1].carry
        assert shown.values[t] == pytest.approx(float(getattr(carry, field).flatten()[7]), abs=1e-6)
    view = transition_view([(model, 1)], PROMPT)
    read = model.run_with_cache(torch.tensor([PROMPT]))[1]["blocks.1.mixer.hook_read"]
    assert view.read[0] == pytest.approx(read[0].flatten(1).norm(dim=1).numpy(), rel=1e-5)
    assert view.moduli.max() <= 1 and token_importance(model, PROMPT, 1).kl.max() > 0
    assert gate_saturation(model, PROMPT).names == ["block 0 decay", "block 1 decay"]


def test_what_a_block_carries_beside_its_mixer_is_a_unit_too(tmp_path):
    sizes = {"attention_hidden_size": 32, "intermediate_size": 48, "context_length": 64}
    model = loaded(tf.RwkvForCausalLM, tf.RwkvConfig(hidden_size=32, **sizes, **COMMON), tmp_path)
    fields = [site.field for site in sites_of(model) if site.layer == 1]
    assert fields[-1] == "channel_mix.shift" and "channel_mix" not in fields[0]
    # The channel mix's token shift is what it was given at the token before.
    given = []
    mix = model.mixers["blocks.1.channel_mix"]
    handle = mix.register_forward_pre_hook(lambda _m, args: given.append(args[0].detach()))
    with torch.no_grad():
        model(torch.tensor([PROMPT]))
    handle.remove()
    shown = cell_text(model, PROMPT, 1, "channel_mix.shift", 9)
    assert shown.values == pytest.approx(given[0][0, :, 9].numpy(), abs=1e-5)
    assert shown.unit == "block 1 channel_mix.shift[0, 9]"


def test_a_transformer_has_its_residual_stream(tmp_path):
    config = tf.LlamaConfig(
        hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, **COMMON
    )
    model = loaded(tf.LlamaForCausalLM, config, tmp_path)
    stream = model.run_with_cache(torch.tensor([PROMPT]))[1]["blocks.1.hook_resid_post"][0, :, 3]
    assert cell_text(model, PROMPT, 1, "residual", 3).values == pytest.approx(stream.numpy(), abs=1e-5)
