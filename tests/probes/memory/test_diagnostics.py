"""Oracle: closed forms of retention, numpy on carries captured in one pass, and pieces against the whole."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from strobe.probes.memory import CarryDiagnostics, Planted, diagnose
from strobe.probes.memory.scan_signals import changing, log_decay_sums, token_decay

LINEAR = ["mamba2", "mamba", "gated_deltanet", "mingru", "rglru"]
EVERY = [*LINEAR, "rwkv4", "gru", "lstm", "elman"]


@pytest.mark.parametrize("name", EVERY)
def test_moments_are_numpys_of_the_carries_of_one_pass(name, native, tokens):
    model, x = native(name), tokens(3, 47)
    result = diagnose(model, x, stride=5, piece=10)
    key = "blocks.0.mixer.hook_state"
    memory = model.run_with_cache(x, names_filter=key, states=slice(4, None, 5))[1][key].numpy()
    assert result.positions.tolist() == list(range(4, 47, 5))
    heads = memory if memory.ndim == 5 else memory[:, :, None]
    entries = heads.reshape(*heads.shape[:3], -1)
    expected = {
        "mean": entries.mean((0, 3)),
        "variance": entries.var((0, 3)),
        "largest": np.abs(entries).max((0, 3)),
        "norm": np.linalg.norm(entries, axis=3).mean(0),
    }
    for field, values in expected.items():
        np.testing.assert_allclose(getattr(result, f"head_{field}")[0], values, rtol=1e-4, atol=1e-6)
    rows = memory.reshape(*memory.shape[:2], -1, memory.shape[-1]) if memory.ndim > 3 else memory[..., None]
    np.testing.assert_allclose(result.channel_norm[0], np.linalg.norm(rows, axis=3).mean(0), rtol=1e-4, atol=1e-6)
    assert (result.rank[0] is None) == (memory.ndim == 3)


@pytest.mark.parametrize("name", LINEAR)
def test_retention_is_the_product_of_the_decays_that_the_scan_was_given(name, native, tokens):
    model, x = native(name), tokens(1, 23)
    family, kept = model.mixers["blocks.0.mixer"].family, []
    with changing(model, lambda layer, kind, s: kept.append(s) or s), torch.no_grad():
        model(x)
    decay = family.transition(kept[0]).decay[0].reshape(23, -1)
    if name == "rglru":
        decay[0] = 1.0  # its first token is marked by a decay of 0
    result = diagnose(model, x, stride=4, piece=8)
    heads = result.head_norm[0].shape[1]
    expected = decay.log().cumsum(0)[3::4].reshape(5, heads, -1).mean(-1)
    np.testing.assert_allclose(result.log_retention[0], expected, rtol=1e-5)
    np.testing.assert_allclose(result.mean_log_decay[0].ravel(), decay.log().mean(0), rtol=1e-5)


def test_a_constant_decay_gives_its_powers_and_its_half_life(native, tokens):
    model, x, a = native("mamba2"), tokens(2, 40), 0.97
    with changing(model, lambda layer, family, s: s._replace(log_decay=torch.full_like(s.log_decay, np.log(a)))):
        result = diagnose(model, x, stride=10)
    expected = np.log(a) * np.array([10, 20, 30, 40])
    np.testing.assert_allclose(result.log_retention[0], np.repeat(expected[:, None], 4, 1), rtol=1e-6)
    np.testing.assert_allclose(result.half_life()[0], np.log(0.5) / np.log(a), rtol=1e-6)
    np.testing.assert_allclose(result.retention_per(64)[0], a**64, rtol=1e-5)


def test_the_exponent_of_rwkv_is_its_constant(native, tokens):
    model = native("rwkv4")
    w = -model.mixers["blocks.0.mixer"].time_decay.detach().exp().numpy()
    result = diagnose(model, tokens(1, 20), stride=5)
    np.testing.assert_allclose(result.mean_log_decay[0][0], w, rtol=1e-6)


def test_a_layer_nonlinear_in_its_carry_has_no_retention(native, tokens):
    result = diagnose(native("gru", "mamba2", "attention"), tokens(2, 40), stride=8)
    assert result.layers == (0, 1) and result.mixers == ("GRU", "Mamba2")
    assert result.log_retention[0] is None and result.half_life()[0] is None
    assert result.log_retention[1].shape == (5, 4)
    with pytest.raises(ValueError, match="it is nonlinear in its carry"):
        result.figure("retention", 0)
    assert "layer 1 (Mamba2)" in result.summary()


def test_pieces_do_not_change_the_numbers(native, tokens):
    model, x = native("mamba2", "gru"), tokens(2, 61)
    whole, cut = diagnose(model, x, stride=4, piece=64), diagnose(model, x, stride=4, piece=9)
    for name in CarryDiagnostics.KEPT:
        for a, b in zip(getattr(whole, name), getattr(cut, name), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole.window_loss, cut.window_loss, rtol=1e-6)


def test_window_losses_are_the_models_own(native, tokens):
    model, x = native("mamba2"), tokens(3, 22)
    with torch.no_grad():
        nats = F.cross_entropy(model(x)[:, :-1].transpose(1, 2), x[:, 1:], reduction="none").mean(0)
    expected = [float(part.mean()) for part in nats.split(5)]
    np.testing.assert_allclose(diagnose(model, x, stride=5).window_loss, expected, rtol=1e-6)
    targets = torch.full_like(x, -100)
    targets[:, 7] = 3
    scored = diagnose(model, x, targets=targets, stride=5)
    with torch.no_grad():
        expected_here = float(F.cross_entropy(model(x)[:, 7], targets[:, 7]))
    assert np.isfinite(scored.window_loss).tolist() == [False, True, False, False, False]
    np.testing.assert_allclose(scored.window_loss[1], expected_here, rtol=1e-6)


def test_the_planted_head_explodes_and_is_named(native, tokens):
    model, x = native("mamba2"), tokens(4, 400)
    result = diagnose(model, x, stride=4, under=Planted(heads=(2,), mean=1.0))
    assert result.provenance.settings["under"]["kind"] == "Planted"
    # Head 3 of the same group shares the planted key.
    ratio = result.explosion_ratio()[0]
    assert ratio.argmax() == 2 and ratio[2] > 20 * np.delete(ratio, 2).max()
    # Variance of a carry that grows with t grows with its square: (400 / 16)^2.
    assert 300 < ratio[2] < 1200 and 2 in result.exploded()[0]
    assert result.half_life()[0][2, 0] == np.inf
    plain = diagnose(model, x, stride=4)
    assert plain.explosion_ratio()[0].max() < 0.1 * ratio[2]
    assert result.outside[0][-1] > plain.outside[0][-1]
    assert "none of this is collapse" in result.summary()


def test_the_forgetting_criterion_compares_windows_beyond_and_within(native, tokens):
    from dataclasses import replace

    result = diagnose(native("mamba2"), tokens(2, 40), stride=4)
    loss = np.array([2.0, 1.0, 3.0, 1.0, 1.0, 1.0, 9.0, 1.0, np.nan, 1.0])
    assert replace(result, window_loss=loss).forgetting_ratio == 3.0
    assert np.isnan(replace(result, window_loss=np.where(np.arange(10) < 4, loss, np.nan)).forgetting_ratio)


def test_every_view_of_it(native, tokens, tmp_path):
    result = diagnose(native("mamba2", "mingru"), tokens(2, 40), stride=4)
    for what in ("norm", "variance", "mean", "largest", "rank", "saturation", "retention"):
        figure = result.figure(what, 0)
        assert figure.layout.xaxis.title.text == "position (tokens)"
        assert any("training length" in a.text for a in figure.layout.annotations)
        assert [t.name for t in figure.data if t.showlegend][-1] == "head 3"
    assert any("control" in t.name for t in result.figure("norm", 1).data)
    assert {t.name for t in result.range_figure().data} == {"layer 0", "layer 1", "held out, inside (control)"}
    assert len(result.channel_figure(0).data) == 2 and len(result.loss_figure().data) == 1
    frame = result.to_frame()
    assert len(frame) == 10 * 4 + 10 and frame.loc[frame.layer == 1, "rank"].isna().all()
    assert CarryDiagnostics.load(result.save(tmp_path / "r.safetensors")) == result
    assert list(frame.columns[:3]) == ["layer", "position", "head"]
    with pytest.raises(ValueError, match="this result has 0, 1"):
        result.figure("norm", 5)
    with pytest.raises(ValueError, match="there are norm, variance"):
        result.figure("colour")
    with pytest.raises(ValueError, match="two rows at least"):
        diagnose(native("gru"), tokens(1, 20), stride=4).range_figure()


def test_bad_input_is_named(native, tokens):
    x = tokens(2, 20)
    offered = (
        "no recurrent layer; position_loss and effective_remembrance apply .* strobe depth, depth_orbit, layer_exp"
    )
    with pytest.raises(ValueError, match=offered):
        diagnose(native("attention"), x)
    with pytest.raises(ValueError, match=r"layers \[1\] were asked for; layers with a recurrent carry: 0"):
        diagnose(native("gru", "attention"), x, layers=[1])
    with pytest.raises(ValueError, match="after every 21 tokens was asked for of 20"):
        diagnose(native("gru"), x, stride=21)
    with pytest.raises(ValueError, match=r"targets of shape \(2, 19\)"):
        diagnose(native("gru"), x, targets=x[:, :-1])
    with pytest.raises(ValueError, match="give token ids"):
        diagnose(native("gru"), torch.zeros(2, 3, 4, dtype=torch.long).float()[..., 0])
    with pytest.raises(ValueError, match="give train_length"):
        diagnose(native("gru"), x, train_length=0)


def test_what_would_not_fit_is_refused_before_it_runs(native, tokens, monkeypatch):
    from strobe.core.errors import CaptureTooLarge

    monkeypatch.setattr("strobe.core.memory.available_bytes", lambda device="cpu": 1000)
    monkeypatch.setattr("strobe.core.memory._SMALL_BYTES", 0)
    with pytest.raises(CaptureTooLarge, match="longer stride or fewer layers"):
        diagnose(native("mamba2"), tokens(1, 20), stride=1)


def test_it_can_be_run_under_an_intervention_on_the_carry(native, tokens):
    from strobe.probes.memory import Reset

    result = diagnose(native("mamba2"), tokens(2, 40), stride=4, piece=10, under=Reset(every=8))
    norms = result.head_norm[0]
    assert not norms[1::2].any() and (norms[::2] > 0).all()


def test_progress_can_cancel(native, tokens):
    def stop(done, total, message):
        raise KeyboardInterrupt

    model = native("mamba2")
    with pytest.raises(KeyboardInterrupt):
        diagnose(model, tokens(1, 20), stride=4, progress=stop)
    assert "inputs" not in vars(model.mixers["blocks.0.mixer"])


def test_a_piece_in_which_no_look_falls_is_passed_through():
    # With a look every 1,024th token and pieces of 512, every other piece has none.
    for shape in ((2, 8, 3), (2, 8, 3, 4)):
        inputs = SimpleNamespace(log_decay=-torch.rand(shape, generator=torch.Generator().manual_seed(0)))
        at_ends, total = log_decay_sums(token_decay("decay", inputs), [])
        rest = shape[3] if len(shape) == 4 else 1
        assert at_ends.shape == (0, 3, rest)
        torch.testing.assert_close(total.flatten(), inputs.log_decay.double().mean(0).sum(0).flatten())
