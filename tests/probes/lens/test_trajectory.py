"""Oracle: the same numbers by hand, one token at a time in float64, from the toy model's own parts; and the model's
loss.

A weight-tied core of identity blocks is the theorem: nothing changes with depth, and the last layer is the model.
"""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import plotly.io
import pytest
import torch
from torch import nn

from strobe.probes.lens import LensTrajectory, LogitLens, TunedLens

TOKENS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 5, 3])


def by_hand(model: Any, tokens: Any, layer: int, translate: Any = lambda h: h) -> np.ndarray:
    """Log-probabilities [time, vocab] of the model cut off after `layer` blocks, in float64."""
    x = model.embed(tokens)[None].detach()
    for block in list(model.blocks)[:layer]:
        x = block.f(x)
    if layer < len(model.blocks):
        x = translate(x)
    x = x[0].double()
    normal = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
    logits = normal.numpy() @ model.unembed.weight.detach().double().numpy().T
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.fixture
def tuned(small: Any) -> TunedLens:
    lens = TunedLens.untrained(small)
    lens.translators.weight.normal_(std=0.2)
    lens.translators.bias.normal_(std=0.5)
    lens.mean_probabilities = torch.linspace(1, 3, 20).double().softmax(0)
    return lens


def test_every_number_is_what_it_is_by_hand(small: Any, tuned: TunedLens) -> None:
    found = tuned.trajectory(small, TOKENS, top_k=4)
    assert found.lenses == ("tuned", "logit")
    log_p = by_hand(small, TOKENS, 2)
    w, b = tuned.translators
    for i, lens in enumerate(found.lenses):
        for layer in range(3):
            moved = (lambda h, k=layer: h + h @ w[k].T + b[k]) if lens == "tuned" else (lambda h: h)
            log_q = by_hand(small, TOKENS, layer, moved)
            for t in range(len(TOKENS)):
                p, q, at = np.exp(log_p[t]), np.exp(log_q[t]), (i, layer, t)
                final = int(p.argmax())
                order = np.argsort(-q)
                assert found.kl[at] == pytest.approx(float((p * np.log(p / q)).sum()), abs=2e-6)
                assert found.entropy[at] == pytest.approx(float(-(q * np.log(q)).sum()), abs=2e-6)
                assert found.top_ids[at].tolist() == order[:4].tolist()
                assert found.top_probabilities[at] == pytest.approx(q[order[:4]], abs=1e-6)
                assert found.final_rank[at] == 1 + order.tolist().index(final)
                if t + 1 == len(TOKENS):
                    assert all(
                        math.isnan(x[at]) for x in (found.cross_entropy, found.target_rank, found.target_probability)
                    )
                else:
                    following = int(TOKENS[t + 1])
                    assert found.cross_entropy[at] == pytest.approx(-math.log(q[following]), abs=2e-6)
                    assert found.target_probability[at] == pytest.approx(q[following], abs=1e-6)
                    assert found.target_rank[at] == 1 + order.tolist().index(following)


def test_the_control_is_the_constant_lens(small: Any, tuned: TunedLens) -> None:
    found = tuned.trajectory(small, TOKENS)
    assert tuned.mean_probabilities is not None
    q = tuned.mean_probabilities.numpy()
    p = np.exp(by_hand(small, TOKENS, 2))
    for layer in range(3):
        assert found.control_kl[layer] == pytest.approx((p * np.log(p / q)).sum(1), abs=1e-5)
        assert found.control_cross_entropy[layer, :-1] == pytest.approx(-np.log(q[TOKENS[1:].numpy()]), abs=1e-9)
    assert found.provenance.control is not None and found.provenance.control.startswith("constant lens")


def test_the_logit_lenss_control_keeps_every_norm_and_knows_nothing(toy: Any) -> None:
    # Identity layers: the logit lens is exact, the scrambled one is not, and far from it however often it is drawn.
    model = toy(torch.randn(30, 16), [lambda x: x] * 2, torch.randn(30, 16), nn.RMSNorm(16))
    found = [LogitLens().trajectory(model, TOKENS, seed=seed) for seed in range(2)]
    assert all((f.kl == 0).all() and f.control_kl.mean() > 1 for f in found)
    assert not np.array_equal(found[0].control_kl, found[1].control_kl)
    assert "equal norm" in str(found[0].provenance.control)


def test_cross_entropy_of_the_last_layer_is_the_models_loss(native: Any) -> None:
    tokens = torch.randint(0, 20, (1, 40))
    found = LogitLens().trajectory(native, tokens)
    expected = native(tokens, return_type="loss").item()
    assert found.cross_entropy[0, -1, :-1].mean() == pytest.approx(expected, abs=1e-5)
    # In bits per token, since there is no tokenizer to say how many bytes.
    assert found.unit == "bits/token" and found.curve()[-1] == pytest.approx(expected / math.log(2), abs=1e-5)


def test_the_last_layer_of_a_model_in_half_precision_is_its_own_output(native: Any) -> None:
    native.to(torch.bfloat16)
    tokens = torch.randint(0, 20, (1, 12))
    found = LogitLens().trajectory(native, tokens)
    own = -native(tokens)[0, :-1].detach().double().log_softmax(-1).gather(-1, tokens[0, 1:, None])[:, 0]
    assert (found.kl[0, -1] == 0).all()
    assert found.cross_entropy[0, -1, :-1].tolist() == own.tolist()


def test_a_tied_identity_core_has_a_constant_rank_and_ends_in_the_models_output(toy: Any) -> None:
    core = nn.Identity()
    model = toy(torch.randn(40, 8), [core] * 6, torch.randn(40, 8), nn.RMSNorm(8))
    found = LogitLens().trajectory(model, TOKENS, top_k=40)
    assert (found.final_rank == 1).all()
    assert (found.target_rank[0, :, :-1] == found.target_rank[0, :1, :-1]).all()
    p = model(TOKENS[None])[0].double().softmax(-1).detach().numpy()
    read = np.take_along_axis(p, found.top_ids[0, -1], 1)
    assert found.top_probabilities[0, -1] == pytest.approx(read, abs=1e-4)


def test_a_text_is_scored_in_bits_per_byte_and_shown_as_tokens(small: Any) -> None:
    class Letters:
        all_special_ids = (0,)

        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            return [0, *("_abcdefghijklmnopqrs".index(c) for c in text)]

        def decode(self, ids: list[int]) -> str:
            return "".join("_abcdefghijklmnopqrs"[i] for i in ids)

    small.tokenizer = Letters()
    found = LogitLens().trajectory(small, "headache")
    assert found.tokens == ["_", *"headache"]
    assert (found.n_bytes, found.n_spelling_tokens, found.unit) == (8, 8, "bits/byte")
    # 9 tokens, the first of which spells nothing: 8 are scored and spell 8 bytes.
    assert found.curve()[0] == pytest.approx(found.cross_entropy[0, 0, :-1].sum() / 8 / math.log(2))
    assert found.top_tokens[0, 1, 2, 0] == Letters().decode([int(found.top_ids[0, 1, 2, 0])])
    again = LogitLens().trajectory(small, torch.tensor(Letters().encode("headache")))
    assert (again.kl == found.kl).all() and again.n_bytes == 8


def test_what_cannot_be_read_is_refused(small: Any) -> None:
    with pytest.raises(ValueError, match="at most 5 tokens was asked for; the text has 10; give a shorter"):
        LogitLens().trajectory(small, TOKENS, max_tokens=5)
    with pytest.raises(ValueError, match=r"found token ids of shape \(2, 5\)"):
        LogitLens().trajectory(small, TOKENS.reshape(2, 5))
    found = LogitLens().trajectory(small, TOKENS)
    with pytest.raises(ValueError, match="lens 'tuned' was asked for; this trajectory was read with logit"):
        found.figure(lens="tuned")
    with pytest.raises(ValueError, match="statistic 'kurtosis' was asked for"):
        found.figure("kurtosis")
    with pytest.raises(ValueError, match="from position 10 were asked for; the text has 10"):
        found.figure(first=10)
    with pytest.raises(ValueError, match="position 10 was asked for"):
        found.token_figure(10)


def test_the_long_form_has_a_row_per_lens_layer_and_token(small: Any, tuned: TunedLens) -> None:
    found = tuned.trajectory(small, TOKENS)
    frame = found.to_frame()
    assert len(frame) == 2 * 3 * 10
    row = frame[(frame.lens == "logit") & (frame.layer == 1) & (frame.position == 4)].iloc[0]
    assert (row.depth, row.token) == (0.5, "5")
    assert row.kl == found.kl[1, 1, 4] and row.final_rank == found.final_rank[1, 1, 4]
    assert row.top_token == str(found.top_ids[1, 1, 4, 0]) and row.control_kl == found.control_kl[1, 4]


def test_a_saved_trajectory_comes_back_without_a_model(small: Any, tuned: TunedLens, tmp_path: Any) -> None:
    found = tuned.trajectory(small, TOKENS)
    found.save(tmp_path / "t.safetensors")
    again = LensTrajectory.load(tmp_path / "t.safetensors")
    assert again == found
    assert again.figure().to_json() == found.figure().to_json()
    assert "tuned lens: mean KL" in again.summary()


@pytest.mark.parametrize("statistic", ["kl", "entropy", "cross_entropy", "rank", "probability"])
def test_the_heatmap_has_layers_up_tokens_across_and_words_inside(small: Any, tuned: TunedLens, statistic: Any) -> None:
    found = tuned.trajectory(small, TOKENS)
    figure = found.figure(statistic, "tuned", first=2, n_tokens=5)
    cells = figure.data[0]
    expected = found.statistic(statistic, "tuned")[:, 2:7]
    assert np.allclose(cells.z, np.log10(expected) if statistic == "rank" else expected)
    assert list(cells.x) == [2, 3, 4, 5, 6] and list(cells.y) == [0, 1, 2]
    assert cells.text[1][3] == str(found.top_ids[0, 1, 5, 0])
    assert list(figure.layout.xaxis.ticktext) == ["4", "1", "5", "9", "2"]
    assert list(figure.layout.yaxis.ticktext) == ["0  0.00", "1  0.50", "output  1.00"]
    assert "tokens 2 to 6 of 10" in figure.layout.title.subtitle.text
    if statistic in ("kl", "cross_entropy"):
        control = found.control_kl if statistic == "kl" else found.control_cross_entropy
        assert f"control: mean {control[:2, 2:7].mean():.3g} nats" in figure.layout.title.subtitle.text
    json.loads(plotly.io.to_json(figure))


def test_a_click_returns_the_position_and_the_layer(small: Any, tuned: TunedLens) -> None:
    found = tuned.trajectory(small, TOKENS)
    figure = found.figure(first=3, n_tokens=4)
    targets = next(t for t in figure.data if t.name == "cells")
    assert list(zip(targets.x, targets.y)) == [(x, y) for y in (0, 1, 2) for x in (3, 4, 5, 6)]
    hover = targets.customdata[list(zip(targets.x, targets.y)).index((5, 1))]
    assert "layer 1 of 2, position 5, token 9" in hover and f"{found.kl[0, 1, 5]:.3g} nats" in hover
    assert "next token 2" in hover and targets.hovertemplate == "%{customdata}<extra></extra>"
    # Streamlit gets clicks from markers that are there but not seen.
    assert targets.marker.opacity == 0 and figure.data[0].hoverinfo == "skip"
    assert (figure.layout.dragmode, figure.layout.clickmode) == (False, "event+select")


def test_the_last_tokens_unknown_target_is_marked_and_hostile_tokens_are_text(small: Any) -> None:
    found = LogitLens().trajectory(small, TOKENS)
    figure = dataclasses.replace(found, vocabulary={**found.vocabulary, 3: "<b>%{x}$\n"}).figure("cross_entropy")
    marks = next(t for t in figure.data if t.name == "not finite")
    assert set(marks.x) == {9} and sorted(marks.y) == [0, 1, 2]
    text = json.dumps([figure.layout.xaxis.ticktext, *(list(t.customdata) for t in figure.data if t.name == "cells")])
    assert "<b>" not in text and "&lt;b&gt;" in text and "%{x}" not in text


def test_large_figures_say_what_they_leave_out(toy: Any) -> None:
    model = toy(torch.randn(10, 4), [lambda x: x] * 30, torch.randn(10, 4))
    found = LogitLens().trajectory(model, torch.randint(0, 10, (140,)))
    figure = found.figure(max_rows=11, n_tokens=140)
    assert list(figure.data[0].y) == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30] and figure.data[0].z.shape == (11, 140)
    assert figure.data[0].text is None
    assert "11 of 31 layers" in figure.layout.title.subtitle.text
    assert "no text in more than 1500 cells" in figure.layout.title.subtitle.text


def test_the_other_figures_show_what_they_say(small: Any, tuned: TunedLens) -> None:
    found = tuned.trajectory(small, TOKENS, top_k=3)
    figure = found.token_figure(-1, "logit")
    assert np.allclose(figure.data[0].z, found.top_probabilities[1, :, 9]) and figure.data[0].text[2][1] == str(
        found.top_ids[1, 2, 9, 1]
    )
    curve = found.curve_figure()
    assert [t.name for t in curve.data] == ["tuned lens", "logit lens", "control (constant lens)"]
    assert np.allclose(curve.data[1].y, found.curve("logit")) and "bits/token" in curve.layout.yaxis.title.text
