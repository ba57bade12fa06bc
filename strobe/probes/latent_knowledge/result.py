"""`LatentKnowledge`: how well each probe says what is true, by where it was fitted, where it is tested, how deep."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from strobe.core.result import Result
from strobe.probes.latent_knowledge.auroc import auroc, bootstrap_interval

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class LatentKnowledge(Result):
    """Axes: probe as in `probes`; train and test context; layer as in `layers`; item (a test problem).

    `scores`: how true each test problem looks to a probe. `truth`: whether "yes" is true. `output`: log odds (nats) of
    "yes" against "no" in the model's own answer. Controls, as AUROCs for the truth: `random` directions at the
    prompt's last token, with the better sign where they are trained [draw]; `shuffled`, supervised probes fitted to
    shuffled labels [shuffle], NaN for the others, which take only their sign from labels; `untrained`, the
    same probes on the model with the entries of each weight permuted, NaN in a result that was cut short.
    """

    probes: tuple[str, ...]
    layers: tuple[int, ...]
    train_contexts: tuple[str, ...]
    test_contexts: tuple[str, ...]
    scores: Float[np.ndarray, "probe train layer test item"]
    truth: Bool[np.ndarray, "test item"]
    output: Float[np.ndarray, "test item"]
    random: Float[np.ndarray, "draw train layer test"]
    shuffled: Float[np.ndarray, "shuffle probe train layer test"]
    untrained: Float[np.ndarray, "probe train layer test"]
    point: str
    n_bootstrap: int

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        if not np.isnan(self.untrained).all():
            return ""
        asked = self.provenance.settings["layers"]
        return f"cut short after {len(self.layers)} of {len(asked)} layers, before the control of permuted weights"

    def auroc(self) -> Float[np.ndarray, "probe train layer test"]:
        """AUROC of each probe for the truth: 1 finds what is true, 0 its opposite, 1/2 nothing."""
        return auroc(self.scores, self.truth)

    def interval(self, level: float = 0.95) -> Float[np.ndarray, "bound probe train layer test"]:
        """Lower and upper percentile bounds of `auroc`, by bootstrap over test problems with the result's own seed."""
        return bootstrap_interval(self.scores, self.truth, self.n_bootstrap, self.provenance.seed or 0, level)

    def output_auroc(self) -> Float[np.ndarray, " test"]:
        """AUROC of the model's own answer for the truth, by test context: near 0 it lies, and knows when."""
        return auroc(self.output, self.truth)

    def output_accuracy(self) -> Float[np.ndarray, " test"]:
        """The share of problems that the model itself answers truthfully, by test context."""
        return ((self.output > 0) == self.truth).mean(1)

    def figure(
        self, train: str | None = None, test: str | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """AUROC by depth with 95 % intervals, of probes fitted in `train` (None: the first context) and tested in
        `test` (None: that in which the model is least truthful), over the controls."""
        from strobe.probes.latent_knowledge import figures

        return figures.by_depth(self, self.train_index(train), self.test_index(test), template)

    def transfer_figure(
        self, layer: int | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Fitted in against tested in, one panel a probe, at `layer` (None: where probes of the first context are best
        on the least truthful one)."""
        from strobe.probes.latent_knowledge import figures

        return figures.transfer(self, self.layer_index(layer), template)

    def train_index(self, context: str | None) -> int:
        """Where `context` is in `train_contexts`; None is the first. Raises ValueError for another."""
        return 0 if context is None else _index("trained in", context, self.train_contexts)

    def test_index(self, context: str | None) -> int:
        """Where `context` is in `test_contexts`; None is the least truthful. Raises ValueError for another."""
        if context is None:
            return int(np.argmin(self.output_auroc()))
        return _index("tested in", context, self.test_contexts)

    def layer_index(self, layer: int | None) -> int:
        """Where `layer` is in `layers`; None is the one with the highest mean AUROC from the first context to the least
        truthful, on the problems of `choosing`. Raises ValueError for another."""
        if layer is None:
            test = self.test_index(None)
            return int(np.argmax(self._auroc_of(test, self.choosing(test))[:, 0].mean(0)))
        if layer not in self.layers:
            raise ValueError(f"layer {layer} was asked for; there are {', '.join(map(str, self.layers))}")
        return self.layers.index(layer)

    def choosing(self, test: int) -> Bool[np.ndarray, " item"]:
        """The half of the problems tested in a context, of the true and of the false ones, that layers are chosen on;
        the other half says what the choice is worth. Drawn with the result's own seed."""
        chosen = np.zeros(self.truth.shape[1], dtype=bool)
        for kind in (0, 1):
            draw = np.random.default_rng((self.provenance.seed or 0, kind))
            items = draw.permutation(np.flatnonzero(self.truth[test] == bool(kind)))
            chosen[items[: len(items) // 2]] = True
        return chosen

    def _auroc_of(self, test: int, items: Bool[np.ndarray, " item"]) -> Float[np.ndarray, "probe train layer"]:
        return auroc(self.scores[:, :, :, [test]][..., items], self.truth[[test]][:, items])[..., 0]

    def to_frame(self) -> "pandas.DataFrame":
        """One row per probe, train context, layer and test context: auroc, its interval, and the controls there."""
        import pandas

        probe, train, layer, test = (a.ravel() for a in np.indices(self.scores.shape[:-1]))
        low, high = self.interval()
        chance = np.broadcast_to(self.random.mean(0), self.scores.shape[:-1])
        return pandas.DataFrame(
            {
                "probe": np.array(self.probes, dtype=object)[probe],
                "trained_in": np.array(self.train_contexts, dtype=object)[train],
                "layer": np.array(self.layers)[layer],
                "tested_in": np.array(self.test_contexts, dtype=object)[test],
                "auroc": self.auroc().ravel(),
                "low": low.ravel(),
                "high": high.ravel(),
                "random": chance.ravel(),
                "shuffled": self.shuffled.mean(0).ravel(),
                "untrained": self.untrained.ravel(),
                "output": self.output_auroc()[test],
            }
        )

    def summary(self) -> str:
        """What the model itself says in each context, and each probe's transfer to the least truthful one: at the layer
        that is best on half of the problems there, by the other half."""
        own, right = self.output_auroc(), self.output_accuracy()
        lines = [f"Latent knowledge at {self.point}: {self.truth.shape[1]} problems tested in each context"]
        lines += [f"  {self.partial}"] if self.partial else []
        lines += [
            f"  {context}: the model's own answer is true for {right[i]:.3f} (AUROC {own[i]:.3f})"
            for i, context in enumerate(self.test_contexts)
        ]
        test = self.test_index(None)
        half = self.choosing(test)
        chosen, told = self._auroc_of(test, half)[:, 0].argmax(1), self._auroc_of(test, ~half)
        kept = self.scores[:, :, :, [test]][..., ~half], self.truth[[test]][:, ~half]
        low, high = bootstrap_interval(*kept, self.n_bootstrap, self.provenance.seed or 0)[..., 0]
        lines.append(
            f"  fitted in {self.train_contexts[0]}, tested in {self.test_contexts[test]}, at the layer that is best on "
            f"{half.sum()} of the problems, by the other {(~half).sum()}:"
        )
        for i, probe in enumerate(self.probes):
            at = (i, 0, int(chosen[i]))
            lines.append(
                f"    {probe}: AUROC {told[at]:.3f} [{low[at]:.3f}, {high[at]:.3f}] at layer {self.layers[at[2]]}; "
                f"weights permuted {self.untrained[*at, test]:.3f}"
            )
        drawn = self.random[:, 0, :, test]
        lines.append(f"    random directions: {drawn.min():.3f} to {drawn.max():.3f} over layers and draws")
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def _index(what: str, context: str, contexts: tuple[str, ...]) -> int:
    if context not in contexts:
        raise ValueError(f"{what} {context!r} was asked for; there are {', '.join(contexts)}")
    return contexts.index(context)
