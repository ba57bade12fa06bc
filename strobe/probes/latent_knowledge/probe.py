"""Fits every probe in every training context and at every layer, tests it in every test context, and runs the controls.

After Mallen et al. 2023 (arXiv 2312.01037): a probe trained where a model answers truthfully (Alice) is tested where it
does not (Bob), by the AUROC of its score for the truth. At 1 it has found what is true; at 0 what is said; at 1/2
neither.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from strobe.probes.latent_knowledge.auroc import auroc
from strobe.probes.latent_knowledge.directions import (
    PROBES,
    SUPERVISED,
    UNSUPERVISED,
    fit_direction,
    pair_scores,
    scores,
)
from strobe.probes.latent_knowledge.features import Features, by_context, read_output, weights_permuted
from strobe.probes.latent_knowledge.problems import Study
from strobe.probes.latent_knowledge.result import LatentKnowledge
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of
from strobe.probes.steering.vector import layer_of, site_names

Tick = Callable[[int, int, str], None]


def latent_knowledge(
    model: Any,
    study: Study,
    *,
    point: str = "resid_post",
    layers: Iterable[int] | None = None,
    probes: Sequence[str] = PROBES,
    n_random: int = 10,
    n_shuffles: int = 3,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[LatentKnowledge], None] | None = None,
) -> LatentKnowledge:
    """Whether directions of `model` say what is true in `study`, at `point` ("carry" for all that a layer carries) of
    each of `layers` (None: all).

    Controls: `n_random` random directions with the better sign; supervised probes with labels shuffled `n_shuffles`
    times; and every probe on the model with the entries of each weight permuted, which comes last.

    Where `progress` raises, `partial` is given the layers that were done, if any, their last control NaN. Raises
    ValueError for an unknown probe, a control of none, a point or layer that the model has not, or prompts and answers
    that do not fit (`Study`, `strobe.probes.latent_knowledge.features`).
    """
    if not probes or not set(probes) <= set(PROBES):
        raise ValueError(f"probes {list(probes)} were asked for; give some of {', '.join(PROBES)}")
    if n_random < 1 or n_shuffles < 1:
        raise ValueError(f"{n_random} random directions and {n_shuffles} shuffles: give one of each at least")
    names = site_names(model, point, layers)
    output = np.stack([read_output(model, problems, study.answers) for problems in study.test.values()])
    truth = np.stack([[p.true for p in problems] for problems in study.test.values()])
    provenance = provenance_of(
        model,
        seed=seed,
        settings={
            "study": study.name, "point": point, "layers": sorted({layer_of(name) for name in names}),
            "probes": list(probes), "n_train": {c: len(p) for c, p in study.train.items()},
            "n_test": truth.shape[1], "n_random": n_random, "n_shuffles": n_shuffles,
        },
        control="random directions, shuffled labels, and the model with the entries of each weight permuted",
    )  # fmt: skip

    done: list[_Found] = []

    def result(untrained: np.ndarray | None) -> LatentKnowledge:
        found = done[-1]
        return LatentKnowledge(
            probes=tuple(probes),
            layers=tuple(found.layers),
            train_contexts=tuple(study.train),
            test_contexts=tuple(study.test),
            scores=found.scores,
            truth=truth,
            output=output,
            random=found.random,
            shuffled=found.shuffled,
            untrained=np.full(found.scores.shape[:-1], np.nan) if untrained is None else untrained,
            point=point,
            n_bootstrap=n_bootstrap,
            provenance=provenance,
        )

    tick = keeping(progress, partial, lambda: result(None) if done else None)
    asked = _Asked(study, names, tuple(probes), n_random, n_shuffles, seed, tick)
    _run(model, asked, done, control=False)
    with weights_permuted(model, seed):
        untrained = _run(model, asked, [], control=True)
    return result(auroc(untrained.scores, truth))


class _Asked(NamedTuple):
    study: Study
    names: list[str]
    probes: tuple[str, ...]
    n_random: int
    n_shuffles: int
    seed: int
    tick: Tick


class _Found(NamedTuple):
    """`scores` [probe, train, layer, test, item]; `random` [draw, train, layer, test] and `shuffled` [shuffle, probe,
    train, layer, test] are AUROCs."""

    layers: list[int]
    scores: Float[np.ndarray, "probe train layer test item"]
    random: Float[np.ndarray, "draw train layer test"]
    shuffled: Float[np.ndarray, "shuffle probe train layer test"]


def _run(model: Any, asked: _Asked, so_far: list[_Found], *, control: bool) -> _Found:
    """Every layer in turn; after each, `so_far` ends with what there is up to it. A `control` has none itself."""
    said = "the control: reading activations of permuted weights" if control else "reading activations"
    tick = _saying(asked.tick, said)
    train = by_context(model, asked.study.train, asked.study.answers, asked.names, tick)
    test = by_context(model, asked.study.test, asked.study.answers, asked.names, tick)
    layers = sorted(next(iter(train.values())).last)
    truth = np.stack([features.true for features in test.values()])
    shape = (len(train), len(layers), len(test))
    found = np.full((len(asked.probes), *shape, truth.shape[1]), np.nan)
    random = np.full((0 if control else asked.n_random, *shape), np.nan)
    shuffled = np.full((0 if control else asked.n_shuffles, len(asked.probes), *shape), np.nan)
    for at, layer in enumerate(layers):
        for t, (context, features) in enumerate(train.items()):
            asked.tick(at * len(train) + t, len(train) * len(layers), f"fitting in {context}, layer {layer}")
            for i, probe in enumerate(asked.probes):
                found[i, t, at] = _tested(probe, features, features.true, layer, test, asked.seed)
            for draw in range(len(random)):
                drawn = _tested("random", features, features.true, layer, test, asked.seed * 1000 + draw)
                random[draw, t, at] = auroc(drawn, truth)
            for draw in range(len(shuffled)):
                labels = np.random.default_rng((asked.seed, draw)).permutation(features.true)
                for i in (i for i, probe in enumerate(asked.probes) if probe in SUPERVISED):
                    drawn = _tested(asked.probes[i], features, labels, layer, test, asked.seed)
                    shuffled[draw, i, t, at] = auroc(drawn, truth)
        done = slice(at + 1)
        so_far.append(_Found(layers[done], found[:, :, done], random[:, :, done], shuffled[:, :, :, done]))
    return so_far[-1]


def _tested(
    probe: str, train: Features, labels: np.ndarray, layer: int, test: Mapping[str, Features], seed: int
) -> Float[np.ndarray, "test item"]:
    """The score of every test problem along a direction fitted on `train`."""
    w = fit_direction(probe, train.last[layer], train.pairs[layer], labels, seed=seed)
    if probe in UNSUPERVISED:
        return np.stack([pair_scores(w, features.pairs[layer]) for features in test.values()])
    return np.stack([scores(w, features.last[layer]) for features in test.values()])


def _saying(progress: Tick, message: str) -> Tick:
    return lambda done, total, _: progress(done, total, message)
