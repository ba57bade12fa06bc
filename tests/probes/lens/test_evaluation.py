"""Oracle: the same means token by token from trajectories of each row, the model's own loss, and closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from strobe.probes.lens import LensEvaluation, LogitLens, TunedLens
from strobe.probes.lens.prediction_depth import prediction_depths
from strobe.probes.lens.ranks import spearman


@pytest.fixture
def tuned(small: Any) -> TunedLens:
    lens = TunedLens.untrained(small)
    lens.translators.weight.normal_(std=0.2)
    lens.translators.bias.normal_(std=0.5)
    return lens


ROWS = torch.randint(0, 20, (5, 12), generator=torch.Generator().manual_seed(7))


def test_the_means_are_those_of_the_rows_trajectories(small: Any, tuned: TunedLens) -> None:
    found = tuned.evaluate(small, ROWS, batch=2, transfer_tokens=0)
    rows = [tuned.trajectory(small, row, top_k=20) for row in ROWS]
    assert found.lenses == ("tuned", "logit") and found.transfer is None
    assert found.kl == pytest.approx(np.mean([r.kl for r in rows], axis=(0, 3)), abs=1e-6)
    assert found.entropy == pytest.approx(np.mean([r.entropy for r in rows], axis=(0, 3)), abs=1e-5)
    assert found.cross_entropy == pytest.approx(
        np.mean([r.cross_entropy[..., :-1] for r in rows], axis=(0, 3)), abs=1e-5
    )
    p = np.zeros((2, 3, 5, 12, 20))
    for i, r in enumerate(rows):
        np.put_along_axis(p[:, :, i], r.top_ids, r.top_probabilities, -1)
    mean = p.mean((2, 3))
    bias = (mean[:, -1:] * np.log(mean[:, -1:] / mean)).sum(-1)
    assert found.bias == pytest.approx(bias, abs=1e-6)
    # The constant lens is the mean final distribution.
    final = p[0, -1]
    assert found.control_kl == pytest.approx(float((final * np.log(final / mean[0, -1])).sum(-1).mean()), abs=1e-6)
    assert found.control_cross_entropy == pytest.approx(
        float(-np.log(mean[0, -1][ROWS[:, 1:].numpy()]).mean()), abs=1e-6
    )
    top = p.argmax(-1).reshape(2, 3, -1)
    assert found.depth.counts[0].tolist() == np.bincount(prediction_depths(top[0]), minlength=3).tolist()
    assert found.depth.agreement[1] == pytest.approx((top[1] == top[1, -1]).mean(1))
    assert found.depth.constant_agreement == np.bincount(top[0, -1]).max() / 60


def test_the_last_layer_is_the_models_loss_in_bits_per_byte(native: Any) -> None:
    tokens = torch.randint(0, 20, (6, 16))
    found = LogitLens().evaluate(native, tokens, n_bytes=240)
    loss = native(tokens, return_type="loss").item()
    assert found.cross_entropy[0, -1] == pytest.approx(loss, abs=1e-5)
    # 96 tokens spell 240 bytes.
    assert found.unit == "bits/byte" and found.curve()[-1] == pytest.approx(loss * 96 / 240 / math.log(2), abs=1e-5)
    assert (found.kl[:, -1] == 0).all() and found.bias[0, -1] == pytest.approx(0, abs=1e-12)


def test_a_stream_is_cut_and_its_bytes_are_counted_whole(small: Any) -> None:
    found = LogitLens().evaluate(small, torch.arange(50) % 20, n_bytes=100, context=16)
    assert found.n_tokens == 48 and found.bytes_per_token == 2.0
    with pytest.raises(ValueError, match="of 0 bytes"):
        LogitLens().evaluate(small, torch.arange(50) % 20, n_bytes=0, context=16)


def test_a_constant_lens_has_no_bias_and_an_offset_one_does(toy: Any) -> None:
    # Block: everything to zero. The final prediction is uniform; the logit lens before it is not.
    model = toy(torch.eye(6), [lambda x: 0 * x], 3 * torch.eye(6))
    tokens = torch.arange(6).repeat(4, 1)
    found = LogitLens().evaluate(model, tokens)
    # Every token equally often: right on average at layer 0 though wrong at each token.
    assert found.bias[0, 0] == pytest.approx(0, abs=1e-6)
    z = math.exp(3) + 5
    kl = math.log(1 / 6) - (math.log(math.exp(3) / z) + 5 * math.log(1 / z)) / 6
    assert found.kl[0, 0] == pytest.approx(kl, abs=1e-5)
    skewed = LogitLens().evaluate(model, torch.zeros(4, 6, dtype=torch.long))
    assert skewed.bias[0, 0] == pytest.approx(kl, abs=1e-5)


def test_prediction_depth_is_where_the_answer_stays() -> None:
    top = np.array([[1, 2, 3, 4], [1, 9, 3, 9], [1, 2, 9, 9], [1, 2, 3, 4]])
    assert prediction_depths(top).tolist() == [0, 2, 3, 3]


def test_depth_of_a_model_that_decides_at_a_known_layer(toy: Any) -> None:
    flip = lambda x: torch.roll(x, 1, -1)
    keep = lambda x: x
    model = toy(torch.eye(8), [keep, flip, keep, keep], 5 * torch.eye(8))
    found = LogitLens().evaluate(model, torch.arange(8)[None])
    assert found.depth.counts.tolist() == [[0, 0, 8, 0, 0]]
    assert found.depth.mean.tolist() == [0.5]
    assert found.depth.agreement.tolist() == [[0, 0, 1, 1, 1]]


def test_transfer_is_each_translator_at_each_layer(small: Any, tuned: TunedLens) -> None:
    found = tuned.transfer(small, ROWS)
    h0, h1, _ = _resid(small)
    w, b = tuned.translators
    for layer in range(2):
        for at, h in enumerate((h0, h1)):
            moved = h + h @ w[layer].T + b[layer]
            assert found.cross_entropy[layer, at] == pytest.approx(_nats(small, moved), abs=1e-5)
        assert found.identity[layer] == pytest.approx(_nats(small, (h0, h1)[layer]), abs=1e-5)
    assert (found.penalty.diagonal() == 0).all()
    assert found.penalty[1, 0] == pytest.approx(found.cross_entropy[1, 0] - found.cross_entropy[0, 0])
    c = [np.cov(h[:, 1:].reshape(-1, 8).double().numpy().T, bias=True) for h in (h0, h1)]
    cosine = (c[0] * c[1]).sum() / np.linalg.norm(c[0]) / np.linalg.norm(c[1])
    assert found.covariance_cosine[0, 1] == pytest.approx(cosine, abs=1e-6)
    assert tuned.evaluate(small, ROWS).transfer is not None


def _resid(model: Any) -> Any:
    x = model.embed(ROWS).detach()
    out = [x]
    for block in model.blocks:
        out.append(block.f(out[-1]))
    return out


def _nats(model: Any, h: Any) -> float:
    logits = model.unembed(model.ln_final(h)).double().log_softmax(-1).detach()
    return float(np.mean([-float(logits[i, t, ROWS[i, t + 1]]) for i in range(5) for t in range(11)]))


def test_layers_that_are_the_same_transfer_for_nothing(toy: Any) -> None:
    model = toy(torch.randn(20, 8), [lambda x: x] * 3, torch.randn(20, 8))
    lens = TunedLens.untrained(model)
    lens.translators.weight.copy_(torch.randn(8, 8).expand(3, 8, 8))
    found = lens.transfer(model, ROWS)
    assert np.abs(found.penalty).max() < 1e-12 and found.covariance_cosine == pytest.approx(np.ones((3, 3)))
    with pytest.raises(ValueError, match="a logit lens has one translator"):
        LogitLens().transfer(model, ROWS)


def test_spearman_is_the_correlation_of_ranks() -> None:
    from scipy.stats import spearmanr

    a, b = np.array([3.0, 1, 4, 1, 5, 9, 2, 6]), np.array([2.0, 7, 1, 8, 2, 8, 1, 8])
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert math.isnan(spearman(a, np.ones(8)))


def test_an_evaluation_can_be_looked_at_and_saved(small: Any, tuned: TunedLens, tmp_path: Any) -> None:
    found = tuned.evaluate(small, ROWS, n_bytes=120)
    assert len(found.to_frame()) == 6 and found.transfer is not None and len(found.transfer.to_frame()) == 4
    assert [t.name for t in found.figure().data] == ["tuned lens", "logit lens", "control (constant)"]
    assert (
        np.allclose(found.figure().data[0].y, found.curve()) and "bits/byte" in found.figure().layout.yaxis.title.text
    )
    assert np.allclose(found.kl_figure().data[1].y, found.kl[1])
    assert np.allclose(found.bias_figure().data[0].y, found.bias[0])
    z = found.transfer.figure().data[0].z
    assert np.allclose(z[:2], found.transfer.penalty) and np.allclose(z[2], found.transfer.identity_penalty)
    settled = found.depth.figure().data[0].y
    assert settled[-1] == 1.0 and len(found.depth.to_frame()) == 6
    assert "control" in found.summary() and "control" in found.transfer.summary()
    found.save(tmp_path / "e.safetensors")
    assert LensEvaluation.load(tmp_path / "e.safetensors") == found
