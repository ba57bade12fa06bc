"""Oracle: the experiment itself, by another route: whole passes with `run_with_edits` instead of going on from a state.

Further: a recurrent model's state decides its future (a spliced state answers as the text it came from), the definition
of KL on logits of whole passes, and captured states of one pass.
"""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from cutting import stopped

from strobe.models import HookedLM, ModelConfig, StateEdit
from strobe.probes.states import (
    StateIntervention,
    StateTrace,
    recurrent_layers,
    state_intervention,
    state_trace,
    total_norm,
)
from strobe.probes.states.editing import random_equal

TEXT = [3, 17, 5, 29, 11, 2, 23, 8, 14]
OPTIONS = {"mamba2": {"heads": 3, "head_dim": 4, "state": 5}, "gru": {"hidden": 12}, "attention": {"n_heads": 2}}


def build(*layers: str) -> HookedLM:
    torch.manual_seed(4)
    config = ModelConfig(
        d_model=16,
        d_vocab=31,
        layers=layers,
        mixer_options={n: OPTIONS[n] for n in layers},
        mlp="plain",
        d_mlp=24,
        tie_embeddings=False,
    )
    model = HookedLM(config, name="small").eval().requires_grad_(False)
    for parameter in model.parameters():
        # An untrained model hardly listens to its state; larger weights make every effect visible above rounding.
        parameter.mul_(3.0)
    return model


@pytest.fixture(scope="module")
def hybrid() -> HookedLM:
    return build("mamba2", "gru", "attention")


def kl(p_logits: torch.Tensor, q_logits: torch.Tensor) -> np.ndarray:
    p, q = p_logits.double().log_softmax(-1), q_logits.double().log_softmax(-1)
    return torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(-1).numpy()


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(("kind", "value", "factor"), [("scale", -1.5, -1.5), ("zero", None, 0.0)])
def test_an_edit_moves_the_predictions_as_a_whole_pass_with_that_edit(hybrid, layer, kind, value, factor):
    result = state_intervention(hybrid, TEXT, layer, 3, kind, value=value, max_new_tokens=0, n_controls=2)
    tokens = torch.tensor([TEXT])
    plain = hybrid(tokens)[0]
    edited = hybrid.run_with_edits(tokens, [StateEdit(layer=layer, position=3, kind="scale", value=factor)])[0]
    expected = kl(plain, edited)
    assert np.isnan(result.kl[:, :4]).all()
    assert expected[4:].max() > 1e-3
    np.testing.assert_allclose(result.kl[1, 4:], expected[4:], rtol=2e-3, atol=1e-7)
    np.testing.assert_allclose(result.kl[0, 4:], 0, atol=1e-12)
    np.testing.assert_allclose(result.first_probabilities[1].max(), edited[4].softmax(-1).max(), rtol=1e-4)
    np.testing.assert_allclose(result.end_probabilities[0].max(), plain[-1].softmax(-1).max(), rtol=1e-4)


def test_a_spliced_state_goes_on_as_the_text_it_came_from():
    model, other = build("gru"), [9, 9, 1, 30]
    result = state_intervention(model, TEXT[:5], 0, -1, "splice", splice_text=other, max_new_tokens=6, n_controls=1)
    shared = torch.tensor([[int(result.tokens[-1].strip("[]"))]])
    expected = model(torch.cat([torch.tensor([other]), shared], 1))[0, -1].softmax(-1)
    np.testing.assert_allclose(result.first_probabilities[1].max(), expected.max(), rtol=1e-4)
    grown = torch.cat([torch.tensor([other]), shared], 1)
    for word in result.continuations[1][1:]:
        best = model(grown)[0, -1].argmax()
        assert word == f"[{int(best)}]"
        grown = torch.cat([grown, best.view(1, 1)], 1)


def test_the_untouched_continuation_is_the_models_own(hybrid):
    result = state_intervention(hybrid, TEXT, 1, 2, "zero", max_new_tokens=7, n_controls=1)
    grown = torch.tensor([TEXT])
    for word in result.continuations[0]:
        best = hybrid(grown)[0, -1].argmax()
        assert word == f"[{int(best)}]"
        grown = torch.cat([grown, best.view(1, 1)], 1)
    assert len(result.continuations[0]) == 7


def test_sampled_runs_share_their_noise(hybrid):
    # A change far below what could flip a draw: the same noise has to give the same tokens.
    result = state_intervention(
        hybrid, TEXT, 1, 2, "scale", value=1 + 1e-6, max_new_tokens=12, temperature=1.0, seed=3, n_controls=1
    )
    assert result.continuations[0] == result.continuations[1] == result.continuations[2]
    other = state_intervention(
        hybrid, TEXT, 1, 2, "scale", value=1 + 1e-6, max_new_tokens=12, temperature=1.0, seed=4, n_controls=1
    )
    assert other.continuations[0] != result.continuations[0]


def test_random_edits_have_the_norm_of_the_edit_head_by_head():
    generator = torch.Generator().manual_seed(0)
    change = {"S": torch.randn(1, 3, 5, 4) * torch.tensor([1.0, 0.0, 7.0]).view(1, 3, 1, 1), "h": torch.randn(1, 12)}
    random = random_equal(change, generator)
    torch.testing.assert_close(random["S"].norm(dim=(-2, -1)), change["S"].norm(dim=(-2, -1)))
    torch.testing.assert_close(random["h"].norm(), change["h"].norm())
    cosine = torch.cosine_similarity(random["h"], change["h"]).item()
    assert abs(cosine) < 0.9


def test_only_the_heads_asked_for_are_edited(hybrid):
    tokens = torch.tensor([TEXT])
    result = state_intervention(hybrid, TEXT, 0, 3, "scale", value=-4.0, heads=[1], max_new_tokens=0, n_controls=1)
    edited = hybrid.run_with_edits(tokens, [StateEdit(layer=0, position=3, kind="scale", value=-4.0, heads=[1])])[0]
    np.testing.assert_allclose(result.kl[1, 4:], kl(hybrid(tokens)[0], edited)[4:], rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("layer", [0, 1])
def test_the_trace_is_the_norm_of_the_captured_states(hybrid, layer, monkeypatch):
    monkeypatch.setattr("strobe.probes.states.trace._PIECE", 4)
    trace = state_trace(hybrid, TEXT, layer, attention=False)
    name = f"blocks.{layer}.mixer.hook_state"
    _, cache = hybrid.run_with_cache(torch.tensor([TEXT]), names_filter=name, states="all")
    states = cache[name][0].numpy()
    np.testing.assert_allclose(
        total_norm(trace.norms), np.linalg.norm(states.reshape(len(TEXT), -1), axis=1), rtol=1e-4
    )
    assert trace.norms.shape == (9, 3 if layer == 0 else 1)
    expected = states if layer == 1 else np.linalg.norm(states, axis=-1).reshape(9, 15)
    np.testing.assert_allclose(trace.channels, expected, rtol=1e-4, atol=1e-6)
    assert trace.signed == (layer == 1)
    # The control sees other words before the same place, so it differs, in a reproducible way.
    assert not np.allclose(trace.control, trace.norms, rtol=1e-3)
    np.testing.assert_array_equal(trace.control, state_trace(hybrid, TEXT, layer, attention=False).control)


def test_effective_attention_rebuilds_the_reads():
    model = build("mamba2")
    mixer = model.mixers["blocks.0.mixer"]
    if mixer.family.attention is None:
        pytest.skip("the decay family has no effective attention yet")
    trace = state_trace(model, TEXT, 0)
    assert trace.attention is not None
    names = [f"blocks.0.mixer.hook_{n}" for n in ("x", "dt", "read")]
    _, cache = model.run_with_cache(torch.tensor([TEXT]), names_filter=names)
    values = (cache[names[0]] * cache[names[1]][..., None])[0].numpy()
    np.testing.assert_allclose(
        np.einsum("hts,shp->thp", trace.attention, values), cache[names[2]][0].numpy(), rtol=1e-3, atol=1e-5
    )
    with pytest.raises(ValueError, match="heads 0 to 2"):
        trace.attention_figure(3)


def test_a_nonlinear_layer_says_why_it_has_no_attention(hybrid):
    trace = state_trace(hybrid, TEXT, 1)
    assert trace.attention is None
    assert "gru" in trace.attention_note
    with pytest.raises(ValueError, match="no sum over earlier tokens"):
        trace.attention_figure()


@pytest.mark.parametrize("template", ["strobe_light", "strobe_dark"])
def test_figures_show_what_the_results_hold(hybrid, template):
    trace = state_trace(hybrid, TEXT, 0, attention=False)
    fig = trace.figure(per_head=True, template=template)
    assert [t.name for t in fig.data] == ["same tokens shuffled (control)", "head 0", "head 1", "head 2"]
    np.testing.assert_array_equal(fig.data[2].y, trace.norms[:, 1])
    assert list(fig.layout.xaxis.ticktext) == [f"[{t}]" for t in TEXT]
    heat = trace.channel_figure(template=template).data[0]
    np.testing.assert_array_equal(np.asarray(heat.z), trace.channels.T)
    result = state_intervention(hybrid, TEXT, 0, 3, "zero", max_new_tokens=0, n_controls=3)
    lines = {t.name: t for t in result.kl_figure(template=template).data}
    np.testing.assert_array_equal(lines["edited"].y, result.kl[1, 4:])
    np.testing.assert_array_equal(lines["edited"].x, range(4, 9))
    bars = {t.name: t for t in result.figure(at="end", template=template).data}
    np.testing.assert_array_equal(bars["untouched"].x, result.end_probabilities[0])
    assert any("KL" in name and name.startswith("edited") for name in bars)


def test_results_come_back_from_their_files(hybrid, tmp_path):
    trace = state_trace(hybrid, TEXT, 1)
    assert StateTrace.load(trace.save(tmp_path / "trace.safetensors")) == trace
    result = state_intervention(hybrid, TEXT, 0, 3, "zero", max_new_tokens=2, n_controls=2)
    assert StateIntervention.load(result.save(tmp_path / "edit.safetensors")) == result
    assert len(result.to_frame()) == 4 * 5
    assert "nats" in result.summary()
    assert result.provenance.control == "random edit of the memory with the same norm, 2 draws"


def test_results_say_which_revision_of_the_model_they_are_of(hybrid, monkeypatch):
    monkeypatch.setattr(hybrid, "revision", "v2", raising=False)
    assert state_trace(hybrid, TEXT, 1, attention=False).provenance.revision == "v2"


def test_the_module_that_older_files_name_defines_both_results():
    # A file says which module to import for its class; those of before this was a package say `strobe.probes.states`.
    code = "import strobe.probes.states; from strobe.core.result import result_class as c; print(c('{}').__name__)"
    for kind in (StateTrace.__name__, StateIntervention.__name__):
        done = subprocess.run([sys.executable, "-c", code.format(kind)], capture_output=True, text=True, check=False)
        assert done.stdout == f"{kind}\n", done.stderr


@pytest.mark.parametrize(
    ("layer", "position", "kind", "extra", "error", "message"),
    [
        (2, 3, "zero", {}, ValueError, "layers with one: 0, 1"),
        (0, 9, "zero", {}, IndexError, r"9 tokens \(0 to 8\)"),
        (0, 3, "scale", {}, ValueError, "give a finite number"),
        (0, 3, "scale", {"value": float("nan")}, ValueError, "give a finite number"),
        (0, 3, "scale", {"value": 1.0}, ValueError, "changes nothing"),
        (0, 3, "splice", {}, ValueError, "give splice_text"),
        (0, 3, "splice", {"splice_text": TEXT[:4]}, ValueError, "changes nothing"),
        (0, 3, "zero", {"heads": [3]}, ValueError, r"0 to 2"),
        (0, 3, "zero", {"n_controls": 0}, ValueError, "give 1 or more"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_way_out(hybrid, layer, position, kind, extra, error, message):
    with pytest.raises(error, match=message):
        state_intervention(hybrid, TEXT, layer, position, kind, max_new_tokens=0, **extra)


def test_progress_is_told_and_may_cancel(hybrid):
    seen = []
    state_intervention(hybrid, TEXT, 0, 3, "zero", max_new_tokens=2, progress=lambda *a: seen.append(a))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]

    class Stop(Exception):
        pass

    def stop(done, total, message):
        if done >= 2:
            raise Stop

    with pytest.raises(Stop):
        state_trace(hybrid, TEXT, 0, progress=stop)
    with pytest.raises(ValueError, match="empty"):
        state_trace(hybrid, [], 0)
    assert recurrent_layers(hybrid) == [0, 1]


def test_an_edit_that_is_stopped_has_its_predictions_and_the_texts_so_far(hybrid):
    ask = partial(state_intervention, hybrid, TEXT, 0, 3, "zero", max_new_tokens=5)
    assert stopped(ask, lambda done, _: done == 1) is None
    whole, so_far = ask(), stopped(ask, lambda done, what: what.startswith("continuing") and done == 4)
    assert so_far.continuations == [words[:2] for words in whole.continuations]
    np.testing.assert_array_equal(so_far.kl, whole.kl)
    np.testing.assert_array_equal(so_far.end_probabilities, whole.end_probabilities)
    assert so_far.partial == "cut short after 2 of 5 new tokens" and so_far.partial in so_far.summary()
    assert not whole.partial and "stopped_after" not in whole.provenance.settings
