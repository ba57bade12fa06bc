"""Oracle: planted trajectories with a closed form (a contraction, a rotation), and a model of tied blocks."""

from functools import partial

import numpy as np
import pytest
import torch
import transformers as tf
from cutting import stopped
from depth_models import TOKENS, VOCAB, D, build, tied

from strobe.core import load_result
from strobe.models import HookedLM, ModelConfig
from strobe.models.huggingface import load_huggingface
from strobe.probes.depth import DepthDynamics, depth_dynamics
from strobe.probes.depth import dynamics as module
from strobe.probes.depth.dynamics import _Trajectories
from strobe.probes.depth.tying import kinds

COMMON = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
tf.logging.disable_progress_bar()


def measures(h):
    total = _Trajectories(len(h) - 1, h.shape[-1], 0)
    # Two batches, which are one.
    total.add(h[:, : h.shape[1] // 3], 1)
    total.add(h[:, h.shape[1] // 3 :], 1)
    return total.found()


def test_a_contraction_converges_and_slows_geometrically():
    eigen = torch.tensor([1.0, 0.5, 0.3, 0.2], dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    start = torch.randn(30, 4, dtype=torch.float64) + torch.tensor([3.0, 1.5, 0.0, 0.0])
    h = torch.stack([start * eigen**step @ basis for step in range(13)])
    found = measures(h)
    assert (np.diff(found["convergence"], axis=0) > 0)[:-1].all()
    np.testing.assert_allclose(found["convergence"][-1], 1.0)
    ratio = found["speed"][9:] / found["speed"][8:-1]
    np.testing.assert_allclose(ratio, 0.5, atol=0.01)


def test_a_rotation_turns_at_one_speed_and_another_token_does_not_say_so():
    angle = np.radians(20.0)
    turn = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    start = torch.randn(200, 2, dtype=torch.float64)
    h = torch.stack([start @ torch.linalg.matrix_power(turn, step) for step in range(5)])
    found = measures(h)
    np.testing.assert_allclose(found["speed"], 20.0)
    np.testing.assert_allclose(found["convergence"][0], np.cos(4 * angle))
    np.testing.assert_allclose(found["similarity_state"][0, 1:], np.cos(angle * np.arange(1, 5)))
    np.testing.assert_allclose(found["similarity_update"][0], np.cos(angle * np.arange(4)))
    assert abs(found["speed_control"].mean() - 90) < 15 and found["speed_control"].std() > 40
    assert abs(found["similarity_state_control"][0, 1]) < 0.2


def test_stable_rank_and_coherence_have_closed_forms():
    n, d = 50, 8
    h = torch.zeros(4, n, d, dtype=torch.float64)
    h[0] = torch.randn(n, d)
    same = torch.randn(d, dtype=torch.float64)
    h[1] = h[0] + same
    # Every axis equally often, with alternating sign: no direction is preferred and the mean is zero.
    axes = torch.eye(d, dtype=torch.float64)[torch.arange(n) % d] * (1 - 2 * ((torch.arange(n) // d) % 2))[:, None]
    h[2] = h[1] + axes
    h[3] = h[2]
    found = measures(h)
    np.testing.assert_allclose(found["stable_rank"][:2], [1.0, 50 / 7], rtol=1e-6)
    units = axes / axes.norm(dim=1, keepdim=True)
    cosines = (units @ units.T).numpy()
    expected = (cosines.sum() - n) / (n * (n - 1))
    np.testing.assert_allclose(found["coherence"][:2], [1.0, expected], atol=1e-9)
    assert found["stable_rank_control"][0] > 3 and abs(found["coherence_control"][0]) < 0.1
    # The last block does nothing: it has no direction, and says so.
    assert np.isnan(found["stable_rank"][2]) and np.isnan(found["coherence"][2])
    assert np.isnan(found["similarity_update"][2]).all() and np.isfinite(found["similarity_update"][:2, :2]).all()
    np.testing.assert_allclose(found["speed"][2], 0.0, atol=1e-5)


@pytest.mark.parametrize(("groups", "start"), [((0, 0, 0, 1, 1, 1), 3), ((0, 0, 1, 1, 1, 1), 2)])
def test_phases_of_a_model_of_two_tied_blocks_are_cut_where_they_meet(groups, start):
    found = depth_dynamics(tied(groups), TOKENS)
    assert found.phases(2, "update").starts == (0, start)
    assert "two phases by update: blocks" in found.summary()


def test_streaming_changes_nothing(monkeypatch):
    model = build("attention", "mamba2", "gru")
    whole = depth_dynamics(model, TOKENS)
    monkeypatch.setattr(module, "_NUMBERS", 4 * 11 * D * 3)
    parts = depth_dynamics(model, TOKENS)
    for name in ("convergence", "speed", "similarity_state", "similarity_update", "stable_rank", "coherence"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-7)
    assert whole.n_tokens == 120 and whole.kinds == (0, 1, 2)


@pytest.mark.parametrize("kind", ["gpt2", "mamba"])
def test_models_of_transformers(kind, tmp_path):
    config = {
        "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(n_embd=D, n_layer=3, n_head=2, n_positions=64, **COMMON)),
        "mamba": lambda: tf.MambaForCausalLM(
            tf.MambaConfig(hidden_size=D, state_size=4, time_step_rank=3, num_hidden_layers=3, **COMMON)
        ),
    }
    torch.manual_seed(0)
    config[kind]().eval().save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, dtype=torch.float32)
    found = depth_dynamics(model, TOKENS)
    theirs = tf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    seen = []
    block = theirs.transformer.h[1] if kind == "gpt2" else theirs.backbone.layers[1]
    block.register_forward_hook(
        lambda module, given, out: seen.extend([given[0], out if torch.is_tensor(out) else out[0]])
    )
    with torch.no_grad():
        theirs(torch.as_tensor(TOKENS), use_cache=False)
    a, b = (x[:, 1:].flatten(0, 1).double() for x in seen)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1)
    np.testing.assert_allclose(found.speed[1], np.degrees(np.arccos(cosine.numpy())), atol=0.01)
    assert kinds(model) == (0, 0, 0)


def test_figures_tables_and_files(tmp_path):
    found = depth_dynamics(build("attention", "attention", "gru"), TOKENS)
    np.testing.assert_allclose(found.figure().data[1].y, found.convergence.mean(1))
    assert any("control" in t.name for t in found.update_figure().data)
    heat = found.similarity_figure("update", 2)
    np.testing.assert_array_equal(heat.data[0].z, found.similarity_update)
    assert len(heat.layout.shapes) == 2 and "explain" in heat.layout.title.subtitle.text
    explained = found.phase_figure("state")
    assert explained.data[1].y[2] == pytest.approx(1.0) and explained.data[1].y[0] == pytest.approx(0.0)
    frame = found.to_frame()
    assert frame.speed[2] == pytest.approx(found.speed[1].mean()) and np.isnan(frame.speed[0])
    again = load_result(found.save(tmp_path / "d.safetensors"))
    assert isinstance(again, DepthDynamics) and again == found


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ValueError, match="trajectories of 2 tokens were asked for"):
        depth_dynamics(build("gru"), [[4, 5, 6]])
    config = ModelConfig(
        d_model=4, d_vocab=3, layers=("gru",), mixer_options={"gru": {"hidden": 5}}, mlp="none", tie_embeddings=False,
        d_input=2,
    )  # fmt: skip
    with pytest.raises(ValueError, match="real-valued inputs"):
        depth_dynamics(HookedLM(config), TOKENS)


def test_a_run_that_is_stopped_has_the_rows_that_were_read(monkeypatch):
    model = tied([0, 0, 1])
    monkeypatch.setattr(module, "_NUMBERS", 2 * 4 * TOKENS.shape[1] * D)
    ask = partial(depth_dynamics, model, TOKENS)
    assert stopped(ask, lambda done, _: done == 0) is None
    so_far, fresh, whole = stopped(ask, lambda done, _: done == 4), depth_dynamics(model, TOKENS[:4]), ask()
    for name in ("convergence", "speed", "similarity_state", "similarity_update", "stable_rank", "coherence"):
        np.testing.assert_array_equal(getattr(so_far, name), getattr(fresh, name))
        np.testing.assert_array_equal(getattr(so_far, f"{name}_control"), getattr(fresh, f"{name}_control"))
    read, asked = 4 * (TOKENS.shape[1] - 1), TOKENS.shape[0] * (TOKENS.shape[1] - 1)
    assert so_far.partial == f"cut short after {read} of {asked} tokens" and not whole.partial
    assert so_far.partial in so_far.summary() and so_far.partial in so_far.figure().layout.title.subtitle.text
    assert so_far.partial in so_far.update_figure().layout.title.subtitle.text


def test_a_text_shorter_than_a_row_is_a_row():
    model = tied([0, 0, 1])
    short = depth_dynamics(model, TOKENS[0, :9], context=64)
    np.testing.assert_array_equal(short.convergence, depth_dynamics(model, TOKENS[:1, :9]).convergence)
