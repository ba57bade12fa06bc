"""Oracle: a theorem (the whole model's Jacobian around a loop has the layers' spectral radius), by autograd in float64.

Further: the loop of a hand-made machine, carries recomputed one token at a time, Hugging Face models.
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
from strobe.probes.repetition import greedy_loop
from strobe.probes.repetition import loops as module

OPTIONS = {
    "mamba2": {"heads": 2, "head_dim": 3, "state": 4},
    "mamba": {"inner": 5, "state": 3, "rank": 2},
    "gated_deltanet": {"heads": 2, "key": 3, "value": 2},
    "mingru": {"hidden": 5},
    "gru": {"hidden": 6},
    "lstm": {"hidden": 5},
    "elman": {"hidden": 5},
    "rglru": {"inner": 6, "heads": 2},
    "rwkv4": {"hidden": 7},
    "attention": {"n_heads": 2},
}
# One alone as well: of two, only the slower is seen.
STACKS = [("mamba2", "gru"), ("gated_deltanet", "lstm"), ("mingru", "elman"), ("rglru", "mamba"), ("gated_deltanet",)]
tf.logging.disable_progress_bar()


def small(*layers: str, scale: float = 0.3) -> HookedLM:
    config = ModelConfig(
        d_model=12,
        d_vocab=19,
        layers=layers,
        mixer_options={n: OPTIONS[n] for n in set(layers)},
        mlp="plain",
        d_mlp=16,
        tie_embeddings=False,
    )
    model = HookedLM(config, name="small").eval().requires_grad_(False)
    torch.manual_seed(5)
    for parameter in model.parameters():
        parameter.add_(scale * torch.randn_like(parameter))
    return model


def whole_radius(model: HookedLM, before, turn: torch.Tensor) -> float:
    """Spectral radius of the map of the whole state, windows and all, over the tokens `turn`."""
    names = list(before.carries)
    fields = [(n, f, getattr(before.carries[n], f).shape) for n in names for f in before.carries[n]._fields]
    sizes = [s.numel() for *_, s in fields]

    def around(flat):
        parts = {(n, f): x.view(s) for (n, f, s), x in zip(fields, flat.split(sizes), strict=True)}
        carries = {n: type(before.carries[n])(*(parts[n, f] for f in before.carries[n]._fields)) for n in names}
        state = type(before)(carries, before.seen, before.weights_hash)
        after = model.forward(turn, state, return_type="state", check=False)[1]
        return torch.cat([getattr(after.carries[n], f).flatten() for n, f, _ in fields])

    flat = torch.cat([getattr(before.carries[n], f).flatten() for n, f, _ in fields])
    jacobian = torch.autograd.functional.jacobian(around, flat)
    return float(torch.linalg.eigvals(jacobian).abs().max())


@pytest.mark.parametrize("layers", STACKS, ids="-".join)
def test_the_largest_radius_of_a_layer_is_that_of_the_whole_model(layers):
    model = small(*layers).double()
    turn, period = torch.tensor([[3, 7, 11]]), 3
    whole = torch.cat([torch.tensor([[1, 2]]), turn.repeat(1, 8)], 1)
    radii = [module._radius(model, model.mixers[f"blocks.{i}.mixer"], whole, period) for i in range(len(layers))]
    assert not any(note for _, note in radii)
    expected = whole_radius(model, model.state_after(whole[:, :-period]), turn)
    assert max(r for r, _ in radii) == pytest.approx(expected, rel=1e-4)
    assert expected > 1e-4 and (len(radii) == 1 or abs(radii[0][0] - radii[1][0]) > 1e-6)


def test_wkv_forgets_around_a_loop_by_its_decay():
    model = small("rwkv4").double()
    whole = torch.tensor([[3, 7, 11] * 9])
    radius, note = module._radius(model, model.mixers["blocks.0.mixer"], whole, 3)
    decay = torch.exp(-torch.exp(model.blocks[0].mixer.time_decay)).max()
    assert note == "" and radius == pytest.approx(float(decay) ** 3, rel=1e-6)


def test_a_loop_is_found_with_its_period_and_the_carry_comes_back(monkeypatch, tmp_path):
    model = small("gru", "mamba2", "attention")
    turn = [4, 9, 2]
    real = module.generate_stream

    def into_a_loop(model, row, n, *, temperature, **kwargs):
        if temperature:
            yield from real(model, row, n, temperature=temperature, **kwargs)
            return
        for token in [5, 6, 8, 1, *(turn[i % 3] for i in range(n - 4))]:
            yield torch.tensor([token])

    monkeypatch.setattr(module, "generate_stream", into_a_loop)
    monkeypatch.setattr(module, "_PIECE", 17)
    result = greedy_loop(model, [3, 1, 7], max_new_tokens=61)
    assert (result.period, result.onset, result.unit) == (3, 4, "[4][9][2]")
    assert "period 3 from new token 4" in result.verdict and "19 whole copies" in result.verdict
    assert result.layers.tolist() == [0, 1] and "not applicable" in result.notes["2"]
    whole = torch.tensor([[3, 1, 7, 5, 6, 8, 1, *(turn[i % 3] for i in range(57))]])
    for i, field in ((0, "h"), (1, "S")):
        carries, state = [], None
        for t in range(whole.shape[1]):
            state = model.state_after(whole[:, t : t + 1], state)
            carries.append(getattr(state.layers[int(result.layers[i])].carry, field).flatten())
        for t in (3, 10, 63):
            moved = (carries[t] - carries[t - 3]).norm() / carries[t].norm()
            assert result.return_distance[i, t - 3] == pytest.approx(float(moved), rel=1e-3, abs=1e-6)
    assert (result.return_distance[:, -1] < 0.05 * np.nanmedian(result.control, 1)).all()
    assert (result.spectral_radius < 1).all() and (result.spectral_radius > 0).all()
    logits = model(whole[:, :-1])[0, 2:]
    best = logits.topk(2).values
    assert result.margin == pytest.approx((best[:, 0] - best[:, 1]).tolist(), abs=1e-4)
    assert load_result(result.save(tmp_path / "l.safetensors")) == result
    figure = result.figure()
    assert [t.name for t in figure.data] == ["sampled text", "block 0 (GRU)", "sampled text", "block 1 (Mamba2)"]
    assert figure.layout.shapes[0].x0 == 7
    assert len(result.to_frame()) == 122


def test_no_loop_is_an_answer(monkeypatch):
    model = small("gru")
    new = [torch.tensor([(i * i + i // 3) % 19]) for i in range(40)]
    monkeypatch.setattr(module, "generate_stream", lambda *args, **kwargs: iter(new))
    result = greedy_loop(model, [3, 1], max_new_tokens=40)
    assert (result.period, result.onset, result.verdict) == (0, -1, "no loop in 40 tokens")
    assert np.isnan(result.return_distance).all() and np.isnan(result.spectral_radius).all()
    assert "no loop" in result.figure().layout.title.subtitle.text and result.summary() == result.verdict


@pytest.mark.parametrize("kind", ["gpt2", "mamba"])
def test_hugging_face_models_loop_too(kind, tmp_path):
    common = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = {
        "gpt2": tf.GPT2Config(n_embd=32, n_head=4, n_layer=2, **common),
        "mamba": tf.MambaConfig(hidden_size=32, state_size=5, time_step_rank=3, num_hidden_layers=2, **common),
    }[kind]
    torch.manual_seed(1)
    tf.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, dtype=torch.float32)
    result = greedy_loop(model, [5, 9], max_new_tokens=24)
    new = [int(w.strip("[]")) for w in result.new]
    greedy = model.generate(torch.tensor([[5, 9]]), 24, temperature=0.0, stop_at_eos=False)[0, 2:].tolist()
    assert new == greedy and (result.margin >= 0).all()
    assert result.layers.tolist() == ([] if kind == "gpt2" else [0, 1])
    if kind == "gpt2":
        assert all("key/value" in note for note in result.notes.values()) and len(result.to_frame()) == 24


def test_what_cannot_loop_is_refused():
    with pytest.raises(ValueError, match="has no token"):
        greedy_loop(small("gru"), [])
    with pytest.raises(ValueError, match="give 8 and 2"):
        greedy_loop(small("gru"), [1], max_new_tokens=4)


@pytest.fixture
def looping(monkeypatch):
    """Greedy continuations that turn around after four tokens."""
    real = module.generate_stream

    def into_a_loop(model, row, n, *, temperature, **kwargs):
        if temperature:
            yield from real(model, row, n, temperature=temperature, **kwargs)
            return
        for token in [5, 6, 8, 1, *([4, 9, 2][i % 3] for i in range(n - 4))]:
            yield torch.tensor([token])

    monkeypatch.setattr(module, "generate_stream", into_a_loop)
    return partial(greedy_loop, small("gru", "mamba2", "attention"), [3, 1, 7], max_new_tokens=31)


def test_a_run_that_is_stopped_has_the_text_so_far_and_its_loop(looping):
    whole = looping()
    assert stopped(looping, lambda done, _: done == 0) is None
    early, late = (stopped(looping, lambda done, _, n=n: done == n) for n in (9, 19))
    assert (early.period, early.new, early.verdict) == (0, whole.new[:9], "no loop in 9 tokens")
    assert early.partial == "cut short after 9 of 31 new tokens" and not whole.partial
    assert (late.period, late.onset, late.new) == (3, 4, whole.new[:19])
    np.testing.assert_allclose(late.margin, whole.margin[:19], rtol=1e-4, atol=1e-6)
    assert np.isnan(late.return_distance).all() and late.return_distance.shape == (2, 19)
    assert list(late.notes) == ["2", "0", "1"] and "was not followed" in late.notes["0"]
    assert "cut short after 19 of 31" in late.summary() and "19 of 31" in late.figure().layout.title.subtitle.text


def test_a_run_that_is_stopped_has_the_layers_whose_carry_was_followed(looping, tmp_path):
    whole, so_far = looping(), stopped(looping, lambda _, what: what.endswith("block 1"))
    assert so_far.new == whole.new and so_far.partial == "cut short after the carries of 1 of 2 layers"
    np.testing.assert_array_equal(so_far.return_distance[0], whole.return_distance[0])
    np.testing.assert_array_equal(so_far.control[0], whole.control[0])
    assert so_far.spectral_radius[0] == whole.spectral_radius[0] and np.isnan(so_far.spectral_radius[1])
    assert "block 0 (GRU)" in so_far.summary() and "block 1 (Mamba2)" not in so_far.summary()
    assert [t.name for t in so_far.figure().data] == ["sampled text", "block 0 (GRU)"]
    assert load_result(so_far.save(tmp_path / "l.safetensors")) == so_far
