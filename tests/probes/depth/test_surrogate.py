"""Oracle: models whose own blocks are tied (their surrogate is themselves), and the loss from whole passes."""

import numpy as np
import pytest
import torch
import transformers as tf
from cutting import stopped_after
from depth_models import TOKENS, build, tied

from strobe.core import load_result
from strobe.models.huggingface import load_huggingface
from strobe.probes.depth import BlockRecurrence, block_recurrence, tied_copy
from strobe.probes.depth.surrogate import _shuffled
from strobe.probes.lens.readout import residuals

SMALL = {"steps": 6, "batch": 3, "n_held_out": 4}
COMMON = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
tf.logging.disable_progress_bar()


def test_a_model_of_tied_blocks_is_its_own_surrogate_and_blocks_shared_at_random_are_not():
    model = tied((0, 0, 0, 1, 1, 1))
    before = model.weights_hash()
    found = block_recurrence(model, TOKENS, k=(2,), rate=1e-9, **SMALL)
    assert found.assignments[0] == (0, 0, 0, 1, 1, 1)
    assert found.loss[0, 0].max() < 1e-10 and found.kl[0, 0].max() < 1e-9
    assert found.loss[0, 1].min() > 1e-3 and found.kl[0, 1].min() > 1e-4
    assert sorted(found.control_assignments[0]) == [0, 0, 0, 1, 1, 1]
    assert model.weights_hash() == before and all(p.requires_grad for p in model.parameters())


def test_training_follows_the_path_better_than_it_began():
    model = build("attention", "attention", "attention", "attention")
    ticks = []
    found = block_recurrence(
        model, TOKENS, k=(1, 2), steps=30, batch=4, n_held_out=4, rate=3e-3, progress=lambda *t: ticks.append(t)
    )
    assert (found.loss[:, 0, -1] < 0.8 * found.loss[:, 0, 0]).all()
    # Two blocks are more than one.
    assert found.loss[1, 0, -1] < found.loss[0, 0, -1]
    # One group has no other drawing.
    assert np.isnan(found.loss[0, 1]).all() and found.control_assignments[0] == ()
    assert ticks[-1][0] < ticks[-1][1] == 90 and "drawn at random" in ticks[-1][2]


def test_where_it_is_stopped_the_surrogates_whose_control_is_whole_are_given():
    def ask(k, **how):
        return block_recurrence(build(*["attention"] * 4), TOKENS, k=k, **SMALL, **how)

    # Six steps for one block, which has no control; the second surrogate's control is cut.
    nothing, cut = (stopped_after(lambda **how: ask((1, 2), **how), n) for n in (6, 14))
    fresh = ask((1,))
    assert nothing is None and cut.k == (1,) and cut.assignments == fresh.assignments
    assert cut.partial == "cut short after 1 of 2 surrogates" and cut.partial in cut.summary() and not fresh.partial
    assert cut.figure().layout.title.subtitle.text.startswith(cut.partial)
    for name in ("loss", "kl", "block_loss"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(fresh, name))


def test_the_loss_is_that_of_whole_passes():
    # The last two blocks begin where a block with another's weights left off, not where the model's own did.
    model = build("attention", "gru", "gru", "gru")
    found = block_recurrence(model, TOKENS, k=(2,), rate=1e-12, **SMALL)
    assert found.assignments[0] == (0, 1, 1, 1)
    by_hand, _ = tied_copy(model, (0, 1, 1, 1))
    held = torch.as_tensor(TOKENS[-4:])
    logits, teacher = residuals(model, held)
    others, path = residuals(by_hand, held)
    losses = []
    for mine, theirs in zip(path[1:], teacher[1:], strict=True):
        a, b = (x[:, 1:].flatten(0, 1).double().numpy() for x in (mine, theirs))
        losses.append(((a - b) ** 2).sum() / ((b - b.mean(0)) ** 2).sum())
    p, q = (x[:, 1:].double().log_softmax(-1) for x in (logits, others))
    np.testing.assert_allclose(found.block_loss[0, 0], losses, rtol=1e-4, atol=1e-9)
    assert found.kl[0, 0, -1] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
    assert losses[0] < 1e-12 and min(losses[1:]) > 1e-3


@pytest.mark.parametrize("kind", ["gpt2", "mamba"])
def test_models_of_transformers_share_and_train(kind, tmp_path):
    config = {
        "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(n_embd=16, n_layer=3, n_head=2, n_positions=64, **COMMON)),
        "mamba": lambda: tf.MambaForCausalLM(
            tf.MambaConfig(hidden_size=16, state_size=4, time_step_rank=3, num_hidden_layers=3, **COMMON)
        ),
    }
    torch.manual_seed(0)
    theirs = config[kind]().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 2:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    theirs.save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, dtype=torch.float32)
    copied, shared = tied_copy(model, (0, 0, 0))
    assert shared and all(p.requires_grad for p in shared)
    # Tying is what writing the weights of one block over those of the others does in transformers' own model.
    decoder = theirs.transformer.h if kind == "gpt2" else theirs.backbone.layers
    for block in decoder:
        block.load_state_dict(decoder[1].state_dict())
    with torch.no_grad():
        expected = theirs(torch.as_tensor(TOKENS), use_cache=False).logits
        torch.testing.assert_close(copied(torch.as_tensor(TOKENS)), expected, atol=1e-4, rtol=1e-4)
        assert (model(torch.as_tensor(TOKENS)) - expected).abs().max() > 0.01
    found = block_recurrence(model, TOKENS, k=(1,), steps=15, batch=4, n_held_out=4, rate=5e-3)
    assert found.loss[0, 0, -1] < 0.95 * found.loss[0, 0, 0]


def test_groups_are_drawn_anew_within_their_kind():
    drawn = _shuffled((0, 0, 1, 1), (0, 0, 0, 0), 0)
    assert sorted(drawn) == [0, 0, 1, 1] and drawn not in ((0, 0, 1, 1), (1, 1, 0, 0))
    assert _shuffled((0, 1, 1), (0, 1, 1), 0) is None
    assert _shuffled((0, 0, 0), (0, 0, 0), 0) is None


def test_figures_tables_files_and_refusals(tmp_path):
    model = build("attention", "attention", "attention")
    found = block_recurrence(model, TOKENS, k=(1, 2), **SMALL)
    assert found.steps[0] == 0 and found.steps[-1] == 6
    names = [t.name for t in found.figure().data]
    assert "k = 2, control: drawn at random" in names and "k = 1, control: drawn at random" not in names
    np.testing.assert_array_equal(found.figure().data[0].y, found.loss[0, 0])
    assert len(found.block_figure().data) == 3
    assert len(found.to_frame()) == 2 * 2 * len(found.steps)
    assert "no other drawing exists" in found.summary()
    again = load_result(found.save(tmp_path / "b.safetensors"))
    assert isinstance(again, BlockRecurrence) and again == found
    with pytest.raises(ValueError, match="4 phases of 3 blocks"):
        block_recurrence(model, TOKENS, k=(4,), **SMALL)
    with pytest.raises(ValueError, match="give one of each at least"):
        block_recurrence(model, TOKENS, k=(), **SMALL)
    with pytest.raises(ValueError, match="different kinds"):
        tied_copy(build("attention", "gru"), (0, 0))
    with pytest.raises(ValueError, match="an assignment of 1 blocks"):
        tied_copy(model, (0,))
