"""`trajectory_anomaly`: prompts that are not like the rest, by how the prediction of the answer forms over the layers.

After Belrose et al. 2023 (section 5): the features of a prompt are a lens's log-probabilities of the possible answers
at its last token, at every layer; a local outlier factor (Breunig et al. 2000) or an isolation forest (Liu et al. 2008)
is fitted on clean prompts and judges others, such as ones into which "ignore the previous" was injected. Beside them,
and this is ours, the same detector given the last layer alone (is the trajectory needed?) and a Mahalanobis distance of
the residual stream halfway up, in place of the paper's relative one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from strobe.probes.latent_knowledge.auroc import auroc, bootstrap_interval
from strobe.probes.lens.anomaly_result import TrajectoryAnomaly
from strobe.probes.lens.fitting import Progress
from strobe.probes.lens.logit_lens import Lens, LogitLens, checked_readout
from strobe.probes.lens.reading import one_row
from strobe.probes.lens.readout import residuals
from strobe.probes.provenance import provenance_of

DETECTORS = ("local outlier factor", "isolation forest", "last layer alone", "Mahalanobis, residual stream")
_NEIGHBOURS, _DRAWS = 20, 1000
_CONTROL = "the second half of the clean judged prompts against their first half"


def trajectory_anomaly(
    model: Any,
    clean: Sequence[Any],
    strange: Sequence[Any],
    answers: Sequence[int],
    *,
    lens: Lens | None = None,
    max_tokens: int = 512,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> TrajectoryAnomaly:
    """AUROC of each of `DETECTORS` for `strange` prompts against clean ones, fitted on other clean ones.

    `clean`, `strange`: texts or token ids. Half of the clean ones, drawn at random, are fitted on and the others judge.
    `answers`: ids of the tokens that could answer. `lens`: None for the logit lens. Raises ValueError for fewer than 8
    clean prompts or no strange one, for an answer the model does not have, and for a lens of another model.
    """
    lens = LogitLens() if lens is None else lens
    read = checked_readout(lens, model)
    if len(clean) < 8 or not len(strange):
        raise ValueError(
            f"{len(clean)} clean and {len(strange)} strange prompts were given; half of the clean ones are fitted on "
            "and the others compared with each other: give 8 clean and 1 strange at least"
        )
    wanted = torch.tensor(list(answers), dtype=torch.long)
    if not len(wanted) or int(wanted.min()) < 0 or int(wanted.max()) >= read.d_vocab:
        raise ValueError(
            f"log-probabilities of tokens {list(answers)} were asked for; tokens are 0 to {read.d_vocab - 1}; give one "
            "or more of these"
        )
    order = np.random.default_rng(seed).permutation(len(clean))
    prompts = [clean[i] for i in order] + list(strange)
    trajectories, middles = [], []
    for i, prompt in enumerate(prompts):
        if on_progress is not None:
            on_progress(i, len(prompts), "reading a prompt")
        logits, resid = residuals(model, one_row(model, prompt, max_tokens))
        with torch.no_grad():
            rows = [lens.logits(read, h[:, -1], layer)[0].double() for layer, h in enumerate(resid[:-1])]
        log_q = torch.stack([*rows, logits[0, -1].double()]).log_softmax(-1)
        trajectories.append(log_q[:, wanted.to(log_q.device)].cpu().numpy())
        middles.append(resid[read.n_layers // 2][0, -1].double().cpu().numpy())
    half = len(clean) // 2
    scores = anomaly_scores(np.stack(trajectories), np.stack(middles), half, seed)
    truth = np.arange(len(prompts) - half) >= len(clean) - half
    n_clean = int((~truth).sum())
    halves = np.arange(n_clean) >= n_clean // 2
    settings = {"lens": lens.kind, "answers": [int(i) for i in answers], "clean": len(clean), "strange": len(strange)}
    return TrajectoryAnomaly(
        detectors=DETECTORS,
        scores=scores,
        strange=truth,
        auroc=auroc(scores[:, None], truth[None])[:, 0],
        interval=bootstrap_interval(scores[:, None], truth[None], _DRAWS, seed)[..., 0],
        control=auroc(scores[:, None, :n_clean], halves[None])[:, 0],
        n_fitted=half,
        provenance=provenance_of(model, seed=seed, settings=settings, control=_CONTROL),
    )


def anomaly_scores(
    trajectories: Float[np.ndarray, "prompt layer answer"], middles: Float[np.ndarray, "prompt d"], n: int, seed: int
) -> Float[np.ndarray, "detector judged"]:
    """How strange each prompt after the first `n` is to each of `DETECTORS`, fitted on the first `n`; larger is
    stranger."""
    from sklearn.covariance import LedoitWolf
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import LocalOutlierFactor

    def outlying(features: Float[np.ndarray, "prompt feature"]) -> Float[np.ndarray, " judged"]:
        fitted = LocalOutlierFactor(n_neighbors=min(_NEIGHBOURS, n - 1), novelty=True).fit(features[:n])
        return -fitted.score_samples(features[n:])

    flat = trajectories.reshape(len(trajectories), -1)
    forest = IsolationForest(random_state=seed).fit(flat[:n])
    distance = LedoitWolf().fit(middles[:n]).mahalanobis(middles[n:])
    return np.stack([outlying(flat), -forest.score_samples(flat[n:]), outlying(trajectories[:, -1]), distance])
