"""Repetition features: ranked, then confirmed by turning each one up and reading what the model writes.

After Yao et al. 2025 (Repeat Curse, arXiv:2504.14218): a feature is a repetition feature if the Rep Score of what is
written while it is turned up is 0.4 or more. Ours: that score counts words between white space, and one word of a
hundred equal tokens has a score of 0, so rep-4 over tokens stands beside it; a feature is confirmed only if it is also
above the untouched model and above every ordinary feature of equal activity; deactivating is true ablation that keeps
the autoencoder's error (their released code adds 0.01 of the direction); and the loss on held-out text stands beside
it, so that mitigation is told from damage.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from strobe.probes.lens.readout import evaluating
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of
from strobe.probes.repetition import metrics
from strobe.probes.repetition.feature_result import MEASURES, RepetitionFeatures
from strobe.probes.repetition.looping import LoopText
from strobe.probes.repetition.ranking import Ranking, candidates, ordinary_features, rank_features

Tick = Callable[[int, int, str], None]
_CONTROL = "ordinary features, as many and as often active on held-out text, treated alike; and the untouched model"
# Tokens of context that a loop is cut off with before it is continued.
_CONTEXT = 48


def repetition_features(
    model: Any,
    sae: Any,
    loops: Sequence[LoopText],
    neutral: Int[Tensor, "n_prompts time"],
    held_out: Int[Tensor, "n_rows n_tokens"],
    *,
    n_candidates: int = 12,
    strength: float | int = 2.0,
    new_tokens: int = 50,
    temperature: float | int = 0.5,
    window: int = 30,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[RepetitionFeatures], None] | None = None,
) -> RepetitionFeatures:
    """Find features of `sae` that make `model` repeat itself.

    `loops`: texts that loop (`looping_texts` or `planted_loops`), which rank the features and are continued with them
    ablated. `neutral`: prompts, continued with each candidate raised at every position by `strength` times its largest
    activation. `held_out`: tokens whose loss says what ablation costs, and on which ordinary features are matched.
    Where `progress` raises, `partial` is given the candidates that were turned up beside their control, if any, and
    nothing of the ablation.

    Raises ValueError for an autoencoder that is not of `model`, no loop, a loop shorter than 16 tokens, or settings
    that leave nothing to do.
    """
    if n_candidates < 1 or new_tokens < 2 or not strength > 0:
        raise ValueError(
            f"{n_candidates} candidates, {new_tokens} new tokens and strength {strength} were asked for; give 1, 2 and "
            "more than 0 at least"
        )
    ranking = rank_features(model, sae, loops, held_out, window=window)
    chosen = candidates(ranking, n_candidates)
    if not chosen:
        raise ValueError("no feature is more active after a loop sets in than before, and none writes towards it")
    others = ordinary_features(ranking, [i for i, _ in chosen], seed)
    settings = {
        "n_candidates": n_candidates, "strength": float(strength), "new_tokens": new_tokens, "window": window,
        "temperature": float(temperature), "n_loops": len(loops), "n_prompts": len(neutral),
        "n_held_out": held_out.numel(), "autoencoder": sae.weights_hash(),
    }  # fmt: skip
    run = _Experiment(model, sae, ranking, loops, neutral, held_out, new_tokens, temperature, float(strength), seed)
    total = 2 * len(chosen) + 5
    if progress is not None:
        progress(0, total, "continuing the prompts untouched")
    base, text = run.score(neutral, None)
    scores: list[np.ndarray] = []
    null: list[np.ndarray] = []
    texts = [text]

    def result(ablated: dict[str, Any]) -> RepetitionFeatures:
        provenance, n = provenance_of(model, seed=seed, settings=settings, control=_CONTROL), len(scores)
        return _result(sae, ranking, chosen[:n], others[:n], base, scores, null, texts, ablated, provenance)

    tick = keeping(progress, partial, lambda: result(run.nothing()) if scores else None)
    for k, ((feature, _), other) in enumerate(zip(chosen, others, strict=True), 1):
        tick(2 * k - 1, total, f"turning up feature {feature}")
        found, text = run.stimulated(feature)
        tick(2 * k, total, f"turning up feature {other}, as control")
        control, _ = run.stimulated(other)
        scores.append(found)
        null.append(control)
        texts.append(text)
    return result(run.ablated(result(run.nothing()), lambda i, what: tick(total - 4 + i, total, what)))


class _Experiment:
    """What is held fixed: one model, its features and texts, one way to sample."""

    def __init__(
        self,
        model: Any,
        sae: Any,
        ranking: Ranking,
        loops: Sequence[LoopText],
        neutral: Tensor,
        held_out: Tensor,
        new_tokens: int,
        temperature: float | int,
        strength: float,
        seed: int,
    ) -> None:
        self.model, self.sae, self.ranking = model, sae, ranking
        self.neutral, self.held_out, self.loops = neutral, held_out, _contexts(loops)
        self.new_tokens, self.temperature, self.strength, self.seed = new_tokens, temperature, strength, seed

    def score(
        self,
        prompts: Tensor,
        features: Mapping[int, float] | Sequence[int] | None,
        mode: Literal["add", "ablate"] = "add",
    ) -> tuple[Float[np.ndarray, "measure prompts"], str]:
        """(both measures of the continuation of each prompt, text of the first)."""
        from strobe.probes.sae import feature_hooks

        hooks = [] if features is None else feature_hooks(self.sae, features, mode=mode)
        states = "all" if hooks and self.sae.site.is_state else None
        with evaluating(self.model):
            whole = self.model.generate(
                prompts.to(next(self.model.parameters()).device), self.new_tokens, temperature=self.temperature,
                seed=self.seed, stop_at_eos=False, fwd_hooks=hooks, states=states,
            )  # fmt: skip
        new = whole[:, prompts.shape[1] :]
        return np.array([repetition_of(self.model, row) for row in new]).T, _text(self.model, new[0])

    def stimulated(self, feature: int) -> tuple[Float[np.ndarray, "measure prompts"], str]:
        value = self.strength * float(self.ranking.largest[feature])
        return self.score(self.neutral, {feature: value})

    def ablated(self, so_far: RepetitionFeatures, tick: Callable[[int, str], None]) -> dict[str, Any]:
        """Measures of loops continued and held-out losses: untouched, without the features, without ordinary ones."""
        features = so_far.deactivated
        ordinary = [int(so_far.ordinary[so_far.features.tolist().index(i)]) for i in features]
        scores, losses = [], []
        for i, some in enumerate((None, features, ordinary)):
            tick(i, "ablating, and continuing loops")
            scores.append(self.score(self.loops, some, "ablate")[0])
            losses.append(self.loss(some))
        return {"loop_scores": np.stack(scores, 1), "held_out_loss": np.stack(losses)}

    def nothing(self) -> dict[str, Any]:
        """The shape of `ablated` before it was run."""
        return {
            "loop_scores": np.full((len(MEASURES), 3, len(self.loops)), np.nan),
            "held_out_loss": np.full((3, len(self.held_out)), np.nan),
        }

    def loss(self, features: Sequence[int] | None) -> Float[np.ndarray, " rows"]:
        """Cross-entropy of each held-out row, nats per token, with `features` ablated."""
        from strobe.probes.sae import feature_hooks

        hooks = [] if features is None else feature_hooks(self.sae, features, mode="ablate")
        tokens = self.held_out.to(next(self.model.parameters()).device)
        states = "all" if hooks and self.sae.site.is_state else None
        losses = []
        for row in tokens.split(1):
            with evaluating(self.model), torch.no_grad():
                logits = self.model.run_with_hooks(row, fwd_hooks=hooks, states=states)
            log_p = logits[:, :-1].double().log_softmax(-1).gather(-1, row[:, 1:, None])
            losses.append(-float(log_p.mean()))
        return np.array(losses)


def repetition_of(model: Any, tokens: Int[Tensor, " time"]) -> tuple[float, float]:
    """(Rep Score of the text that `tokens` spell, rep-4 of the tokens; 0 for fewer than four).

    Without a tokenizer, or in a text without a word, the tokens are the words.
    """
    ids = tokens.tolist()
    words = [] if model.tokenizer is None else str(model.to_string(tokens)).split()
    return metrics.rep_n(words or ids, 1), metrics.rep_n(ids, 4) if len(ids) >= 4 else 0.0


def _contexts(loops: Sequence[LoopText]) -> Int[Tensor, "loops time"]:
    """The last tokens of every loop, as many of each as all have."""
    length = min(_CONTEXT, *(len(loop.tokens) for loop in loops))
    if length < 16:
        raise ValueError(f"a loop of {length} tokens was given; give 16 at least, so that it is one when it goes on")
    return torch.stack([loop.tokens[-length:] for loop in loops])


def _result(
    sae: Any,
    ranking: Ranking,
    chosen: Sequence[tuple[int, str]],
    others: Sequence[int],
    base: np.ndarray,
    scores: Sequence[np.ndarray],
    null: Sequence[np.ndarray],
    texts: Sequence[str],
    ablated: dict[str, Any],
    provenance: Any,
) -> RepetitionFeatures:
    indices = [i for i, _ in chosen]
    return RepetitionFeatures(
        hook_name=sae.hook_name,
        features=np.array(indices, dtype=np.int64),
        ranked_by=[why for _, why in chosen],
        ordinary=np.array(others, dtype=np.int64),
        delta=ranking.delta.numpy().astype(np.float32),
        projection=ranking.projection.numpy().astype(np.float32),
        density=ranking.density.numpy().astype(np.float32),
        largest=ranking.largest.numpy().astype(np.float32),
        base_scores=base,
        scores=np.stack(scores, 1),
        ordinary_scores=np.stack(null, 1),
        texts=list(texts),
        provenance=provenance,
        **ablated,
    )


def _text(model: Any, tokens: Tensor) -> str:
    return " ".join(map(str, tokens.tolist())) if model.tokenizer is None else str(model.to_string(tokens))
