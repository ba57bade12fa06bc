"""Oracle: O2.6, features of which one layer is moved by ten standard deviations, or by none; features by hand."""

from typing import Any

import numpy as np
import pytest
import torch

from strobe.probes.latent_knowledge.auroc import auroc
from strobe.probes.lens import LogitLens, TrajectoryAnomaly, trajectory_anomaly
from strobe.probes.lens.anomaly import DETECTORS, anomaly_scores

N, LAYERS, ANSWERS = 400, 5, 2


def scores(shift: float, layer: int = 2) -> np.ndarray:
    """Scores of N clean prompts and then N whose `layer` is moved; fitted on N others. The stream is moved too."""
    rng = np.random.default_rng(0)
    trajectories, middles = rng.normal(size=(3 * N, LAYERS, ANSWERS)), rng.normal(size=(3 * N, 8))
    trajectories[2 * N :, layer] += shift
    middles[2 * N :] += shift
    return anomaly_scores(trajectories, middles, N, 0)


TRUTH = np.arange(2 * N) >= N


def test_a_layer_moved_by_ten_standard_deviations_is_seen_and_none_is_not() -> None:
    moved, same = (auroc(scores(shift)[:, None], TRUTH[None])[:, 0] for shift in (10.0, 0.0))
    assert same == pytest.approx(0.5, abs=0.05)
    # A forest splits one feature at a time, and most of its splits are of layers that did not move. What sees the last
    # layer alone cannot know.
    least = dict(zip(DETECTORS, (0.99, 0.9, None, 0.99), strict=True))
    for name, found in zip(DETECTORS, moved, strict=True):
        assert found == pytest.approx(0.5, abs=0.05) if least[name] is None else found >= least[name]
    last = auroc(scores(10.0, layer=LAYERS - 1)[:, None], TRUTH[None])[:, 0]
    assert last[DETECTORS.index("last layer alone")] >= 0.99


def test_prompts_of_other_tokens_stand_out_and_clean_ones_do_not(small: Any, tmp_path: Any, monkeypatch: Any) -> None:
    seen = []
    monkeypatch.setattr(
        "strobe.probes.lens.anomaly.anomaly_scores",
        lambda t, m, n, s: (seen.append((t, m)), anomaly_scores(t, m, n, s))[1],
    )
    generator = torch.Generator().manual_seed(0)
    # Clean prompts end in one token, strange ones in another.
    prompts = torch.randint(0, 20, (110, 7), generator=generator)
    prompts[:80, -1], prompts[80:, -1] = 3, 15
    clean, strange = list(prompts[:80]), list(prompts[80:])
    found = trajectory_anomaly(small, clean, strange, range(20), seed=1)
    assert found.strange.sum() == 30 and len(found.strange) == 70 and found.n_fitted == 40
    assert (
        found.auroc[0] > 0.9 and (found.interval[0] <= found.auroc).all() and (found.auroc <= found.interval[1]).all()
    )
    assert (np.abs(found.control - 0.5) < 0.25).all()
    # The features: log-probabilities of the answers after the last token, at every layer.
    order = np.random.default_rng(1).permutation(80)
    for i in (0, 11):
        trajectory = LogitLens().trajectory(small, clean[order[i]], top_k=20)
        for layer in range(3):
            p = dict(zip(trajectory.top_ids[0, layer, -1], trajectory.top_probabilities[0, layer, -1], strict=True))
            assert seen[0][0][i, layer] == pytest.approx([np.log(p[a]) for a in range(20)], abs=1e-6)
    assert TrajectoryAnomaly.load(found.save(tmp_path / "a.safetensors")) == found
    assert len(found.to_frame()) == 4 * 70 and "AUROC" in found.summary()
    assert np.allclose(found.figure().data[0].x, found.auroc)


def test_what_cannot_be_judged_is_refused(small: Any) -> None:
    prompts = [torch.arange(5)] * 8
    with pytest.raises(ValueError, match="give 8 clean"):
        trajectory_anomaly(small, prompts[:7], prompts, [1])
    with pytest.raises(ValueError, match="tokens are 0 to 19"):
        trajectory_anomaly(small, prompts, prompts, [20])
