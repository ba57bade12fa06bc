"""`SteeringSweep`: what a vector does at each layer and multiplier, what it costs in fluency, and what chance does.

Behaviour is ``p(matching) / (p(matching) + p(other))`` and *outside* ``1 - p(matching) - p(other)``, as in Paulo et al.
(who call the second nonsense): a vector that only breaks a model sends outside to 1. Ours: the divergence, the
perplexity, the random directions, the intervals, and what is called broken.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# Broken, by our convention: less than half of the answers' probability is left, or the unsteered model finds the
# continuation at least twice as perplexing as its own.
_MASS_LEFT, _PERPLEXITY_RATIO = 0.5, 2.0
# The best setting is chosen on every other question and told of the others: the largest of many effects, on the
# questions it is the largest on, is too large.
_EVERY, _CHOOSING, _TOLD = slice(None), slice(0, None, 2), slice(1, None, 2)


@dataclass(frozen=True)
class SteeringSweep(Result):
    """Axes: vector as in `vectors` ("residual", "state", ...); draw (0 the vector, then random directions of its norm);
    layer as in `layers`; multiplier as in `multipliers`; question. NaN where a vector has no direction at a layer.

    `behaviour`, `outside`: probabilities at the next token. `kl`: KL(unsteered || steered) of the next token, nats.
    `log_perplexity`: nats per token of the steered continuation under the unsteered model, for the first of the
    questions (none where continuations were not asked for). `base_*`: of the unsteered model. `norms`: of each
    direction.
    """

    vectors: tuple[str, ...]
    layers: tuple[int, ...]
    multipliers: Float[np.ndarray, " multiplier"]
    behaviour: Float[np.ndarray, "vector draw layer multiplier question"]
    outside: Float[np.ndarray, "vector draw layer multiplier question"]
    kl: Float[np.ndarray, "vector draw layer multiplier question"]
    log_perplexity: Float[np.ndarray, "vector draw layer multiplier continued"]
    base_behaviour: Float[np.ndarray, " question"]
    base_outside: Float[np.ndarray, " question"]
    base_log_perplexity: Float[np.ndarray, " continued"]
    norms: Float[np.ndarray, "vector layer"]
    labels: tuple[str, str]
    n_bootstrap: int

    def mean(self, name: str, questions: slice = _EVERY) -> Float[np.ndarray, "vector draw layer multiplier"]:
        """Mean over `questions` of "behaviour", "outside", "kl", "log_perplexity" or "effect" (the behaviour's change).

        Raises ValueError for another name.
        """
        values = self._values_of(name)[..., questions]
        if not values.shape[-1]:
            return np.full(values.shape[:-1], np.nan)
        return values.mean(-1)

    def interval(
        self, name: str, level: float = 0.95, questions: slice = _EVERY
    ) -> Float[np.ndarray, "bound vector draw layer multiplier"]:
        """Lower and upper percentile bounds of `mean`, by bootstrap over `questions` with the result's own seed.

        One resampling of the questions serves all cells, so differences between cells are not blurred by it.
        """
        values = self._values_of(name)[..., questions]
        n = values.shape[-1]
        if not n:
            return np.full((2, *values.shape[:-1]), np.nan)
        counts = np.random.default_rng(self.provenance.seed).multinomial(n, np.full(n, 1 / n), self.n_bootstrap)
        means = np.einsum("...q,rq->r...", values, counts / n)
        return np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)

    @property
    def progress(self) -> tuple[int, int]:
        """(cells measured to the end, cells asked for), a cell being one question at one vector, draw, layer and
        multiplier: a sweep that was cancelled has the questions that were finished."""
        cells = int(np.isfinite(self.norms).sum()) * self.kl.shape[1] * len(self.multipliers)
        return cells * self.base_behaviour.size, cells * int(self.provenance.settings["n_questions"])

    @property
    def broken(self) -> Bool[np.ndarray, "vector draw layer multiplier"]:
        """Where steering has broken the model, by our convention: less than half of the answers' probability is left,
        or the continuation is twice as perplexing to the unsteered model as its own."""
        return self._broken(_EVERY)

    def _broken(self, questions: slice) -> Bool[np.ndarray, "vector draw layer multiplier"]:
        left = (1 - self.mean("outside", questions)) / (1 - self.base_outside[questions].mean())
        broken = left < _MASS_LEFT
        if (base := self.base_log_perplexity[questions]).size:
            broken |= self.mean("log_perplexity", questions) - base.mean() > np.log(_PERPLEXITY_RATIO)
        return broken

    def best(self, vector: int = 0) -> tuple[int, int]:
        """(index of layer, index of multiplier) with the largest effect of `vector` towards the behaviour that does not
        break the model, on every other question, from the first; the rest say what the choice is worth.

        Raises ValueError where every setting breaks it.
        """
        effect = np.where(self._broken(_CHOOSING)[vector, 0], np.nan, self.mean("effect", _CHOOSING)[vector, 0])
        if not np.isfinite(effect).any():
            raise ValueError(f"every setting of {self.vectors[vector]!r} broke the model; sweep smaller multipliers")
        layer, multiplier = np.unravel_index(np.nanargmax(effect), effect.shape)
        return int(layer), int(multiplier)

    def figure(self, layer: int | None = None, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Behaviour, outside and divergence against the multiplier at `layer` (None: the best of the first vector)."""
        from strobe.probes.steering import sweep_figures

        return sweep_figures.curves(self, layer, template)

    def heatmap_figure(
        self, name: str = "effect", vector: str | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Layers by multipliers, coloured by the mean of `name` for one vector (None: the first)."""
        from strobe.probes.steering import sweep_figures

        return sweep_figures.heatmap(self, name, vector, template)

    def trade_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """What is gained against what it costs: every setting of every vector, and of the random directions, on one
        pair of axes, whatever space the vector is in."""
        from strobe.probes.steering import sweep_figures

        return sweep_figures.trade(self, template)

    def vector_index(self, vector: str | None) -> int:
        """Where `vector` is in `vectors`; None is the first. Raises ValueError for one that was not swept."""
        if vector is None:
            return 0
        if vector not in self.vectors:
            raise ValueError(f"vector {vector!r} was asked for; this sweep has {', '.join(self.vectors)}")
        return self.vectors.index(vector)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per vector, draw, layer and multiplier: means, and the interval of the effect."""
        import pandas

        vector, draw, layer, multiplier = (a.ravel() for a in np.indices(self.kl.shape[:-1]))
        low, high = self.interval("effect")
        columns = {name: self.mean(name).ravel() for name in ("behaviour", "effect", "outside", "kl", "log_perplexity")}
        return pandas.DataFrame(
            {
                "vector": np.array(self.vectors, dtype=object)[vector],
                "draw": np.where(draw == 0, "steered", np.char.add("random ", draw.astype(str))),
                "layer": np.array(self.layers)[layer],
                "multiplier": self.multipliers[multiplier],
                "norm": self.norms[vector, layer],
                **columns,
                "effect_low": low.ravel(),
                "effect_high": high.ravel(),
                "broken": self.broken.ravel(),
            }
        )

    def summary(self) -> str:
        """The best unbroken setting of each vector, chosen on every other question, with its interval on the rest and
        the random directions there."""
        base = self.base_behaviour.mean()
        lines = [
            f"Steering towards {self.labels[0]}, away from {self.labels[1]}: {self.base_behaviour.size} questions, "
            f"behaviour {base:.3f} unsteered, outside {self.base_outside.mean():.3f}"
        ]
        done, asked = self.progress
        if done < asked:
            lines.append(f"  cancelled: {done} of {asked} cells; the intervals are over the questions that were done")
        told = _TOLD if self.base_behaviour.size > 1 else _EVERY
        said = "the others" if told is _TOLD else "the same one question, for want of another"
        lines.append(f"  settings are chosen on every other question; the figures are of {said}:")
        effect, kl = self.mean("effect", told), self.mean("kl", told)
        low, high = self.interval("effect", questions=told)
        for i, name in enumerate(self.vectors):
            try:
                at = self.best(i)
            except ValueError:
                lines.append(f"  {name}: no setting that leaves the model whole")
                continue
            chance = effect[(i, slice(1, None), *at)]
            there = (i, 0, *at)
            lines.append(
                f"  {name}: {effect[there]:+.3f} [{low[there]:+.3f}, {high[there]:+.3f}] at layer "
                f"{self.layers[at[0]]}, multiplier {self.multipliers[at[1]]:g}; "
                f"KL {kl[there]:.3g} nats; random directions "
                f"{chance.min():+.3f} to {chance.max():+.3f} ({len(chance)} draws)"
                + ("; broken there" if self._broken(told)[there] else "")
            )
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])

    def _values_of(self, name: str) -> np.ndarray:
        if name == "effect":
            return self.behaviour - self.base_behaviour
        values = {n: getattr(self, n) for n in ("behaviour", "outside", "kl", "log_perplexity")}
        if name not in values:
            raise ValueError(f"{name!r} was asked for; a sweep has effect, {', '.join(values)}")
        return values[name]
