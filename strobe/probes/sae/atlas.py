"""`FeatureAtlas`: every feature of an autoencoder as people look at features: how often and how strongly it fires, what
it does to the next token, the passages where it fires at each strength, and the tokens it fires on.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

BANDS = ("strongest", "75–100 % of the maximum", "50–75 %", "25–50 %", "0–25 %")
"""Which passages are kept: the strongest, then some from each quarter below a feature's maximum."""
PER_BAND = (6, 3, 3, 3, 3)


class Passage(NamedTuple):
    """Tokens around a token on which a feature fired; `values`: its activations on them; `at`: the token."""

    band: str
    tokens: list[str]
    values: np.ndarray
    at: int
    row: int
    position: int


@dataclass(frozen=True)
class FeatureAtlas(Result):
    """Axes: feature; `passage` as `BANDS` times `PER_BAND`; `window` tokens around each.

    `density`: fraction of the text's tokens on which a feature is active; `control_density`: the same on the text with
    its tokens in random order, so what a feature owes to the order shows. `maximum`, `mean_active`: of its activations.
    `histogram`: counts in `bins` equal parts of 0 to its maximum, zeros not counted. `logit_tokens`, `logit_effects`
    [feature, 2, top]: tokens that one unit of the feature raises (0) and lowers (1) most, and by how many logits,
    through the final norm at the mean last residual, less the mean over the vocabulary; none (top = 0) for a state.
    `passage_at` [.., 2]: row and position, -1 where there is none. `passage_tokens`, `passage_values`. `token_ids`,
    `token_texts`: of every token that is named. `token_features`, `token_means` [token, top]: the features with the
    largest mean activation on a token; -1 where there are none. `hook_name`, `sae_hash`: of the autoencoder.
    """

    hook_name: str
    sae_hash: str
    density: Float[np.ndarray, " feature"]
    control_density: Float[np.ndarray, " feature"]
    maximum: Float[np.ndarray, " feature"]
    mean_active: Float[np.ndarray, " feature"]
    histogram: Int[np.ndarray, "feature bins"]
    logit_tokens: Int[np.ndarray, "feature 2 top"]
    logit_effects: Float[np.ndarray, "feature 2 top"]
    passage_at: Int[np.ndarray, "feature passage 2"]
    passage_tokens: Int[np.ndarray, "feature passage window"]
    passage_values: Float[np.ndarray, "feature passage window"]
    token_ids: Int[np.ndarray, " token"]
    token_texts: list[str]
    token_features: Int[np.ndarray, "token found"]
    token_means: Float[np.ndarray, "token found"]
    before: int
    n_tokens: int

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        settings = self.provenance.settings
        asked = settings["n_tokens"] // settings["context"] * (settings["context"] - settings["skip"])
        return "" if self.n_tokens == asked else f"cut short after {self.n_tokens} of {asked} tokens"

    @property
    def n_features(self) -> int:
        """How many features there are."""
        return len(self.density)

    def check(self, feature: int) -> int:
        """`feature`. Raises IndexError if there is none of that index."""
        if not 0 <= feature < self.n_features:
            raise IndexError(
                f"feature {feature} was asked for; this atlas has 0 to {self.n_features - 1}; choose one of those"
            )
        return feature

    def text_of(self, token: int) -> str:
        """The text of a token that is named in the atlas."""
        i = int(np.searchsorted(self.token_ids, token))
        if i == len(self.token_ids) or self.token_ids[i] != token:
            raise ValueError(f"token {token} is not in this atlas; look it up with the model's tokenizer")
        return self.token_texts[i]

    def passages(self, feature: int) -> list[Passage]:
        """Passages of `feature`, strongest first, then band by band. Raises IndexError."""
        self.check(feature)
        names = [name for name, n in zip(BANDS, PER_BAND, strict=True) for _ in range(n)]
        found = []
        for p, name in enumerate(names):
            row, position = self.passage_at[feature, p]
            if row < 0:
                continue
            ids = self.passage_tokens[feature, p]
            real = ids >= 0
            at = int(real[: self.before].sum())
            words, values = [self.text_of(int(i)) for i in ids[real]], self.passage_values[feature, p][real]
            found.append(Passage(name, words, values, at, int(row), int(position)))
        return found

    def logits(self, feature: int) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """(raised, lowered): (token, logits for one unit of `feature`), strongest first; empty for a state. Raises
        IndexError."""
        ids, effects = self.logit_tokens[self.check(feature)], self.logit_effects[feature]
        raised, lowered = (
            [(self.text_of(int(t)), float(e)) for t, e in zip(ids[side], effects[side], strict=True)] for side in (0, 1)
        )
        return raised, lowered

    def search(self, text: str) -> list[tuple[int, str, float]]:
        """(feature, token, mean activation on it) for tokens whose text, without spaces around it, is `text`; strongest
        first. Empty if no such token was read or nothing fires on it."""
        wanted = text.strip() or text
        found = []
        for i, word in enumerate(self.token_texts):
            if word == text or word.strip() == wanted:
                pairs = zip(self.token_features[i], self.token_means[i], strict=True)
                found += [(int(f), word, float(m)) for f, m in pairs if f >= 0]
        return sorted(found, key=lambda row: -row[2])

    def twin(self, feature: int) -> int:
        """The other feature whose density and mean activation are most alike: the control of an intervention, so that
        what is seen is not what any feature of that activity does. Raises IndexError, and ValueError where no other
        feature fires."""
        self.check(feature)
        alive = self.density > 0
        alive[feature] = False
        if not alive.any():
            raise ValueError(f"feature {feature} has no twin: no other feature fires on this text; read more text")
        tiny = 1e-12
        away = np.abs(np.log((self.density + tiny) / (self.density[feature] + tiny)))
        away += np.abs(np.log((self.mean_active + tiny) / (self.mean_active[feature] + tiny)))
        return int(np.where(alive, away, np.inf).argmin())

    def figure(self, feature: int | None = None, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Of one feature the histogram of its activations; None: the densities of all, beside the shuffled text."""
        from strobe.probes.sae import atlas_figures

        if feature is None:
            return atlas_figures.densities(self, template)
        return atlas_figures.histogram(self, self.check(feature), template)

    def logit_figure(self, feature: int, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The tokens that `feature` raises and lowers most. Raises ValueError for a state, which has no such effect."""
        from strobe.probes.sae import atlas_figures

        return atlas_figures.logits(self, self.check(feature), template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per feature."""
        import pandas as pd

        columns = {n: getattr(self, n) for n in ("density", "control_density", "maximum", "mean_active")}
        frame = pd.DataFrame({"feature": np.arange(self.n_features), **columns})
        if self.logit_tokens.shape[2]:
            for side, name in enumerate(("raises", "lowers")):
                frame[name] = [self.text_of(int(t)) for t in self.logit_tokens[:, side, 0]]
        return frame

    def summary(self) -> str:
        """How many fire, how often, and how that compares with the shuffled text."""
        alive = self.density > 0
        return (
            f"{self.n_features} features of {self.hook_name} on {self.n_tokens} tokens: {int(alive.sum())} fire, the "
            f"median one on {np.median(self.density[alive]) if alive.any() else 0:.3%} of the tokens "
            f"({np.median(self.control_density[alive]) if alive.any() else 0:.3%} with the tokens in random order)"
            f"{'; ' if self.partial else ''}{self.partial}"
        )
