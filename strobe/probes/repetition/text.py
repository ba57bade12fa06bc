"""How repetitive one text is, beside the same items in shuffled order and, for a continuation, beside its prompt."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.probes.repetition import metrics

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_CONTROL = "the same items in shuffled order, {} draws (rep-1 and its entropy cannot change)"


@dataclass(frozen=True)
class TextRepetition(Result):
    """rep-n and information entropy of a text for each n in `n`, over its words or its tokens (`unit`).

    `control_rep`, `control_entropy` [draws, n]: of the items in shuffled order. `rep_score`: rep-1 over words between
    white space, NaN where there is no text. `repeated_sentences`, `consecutive_sentences`: shares, NaN as well.
    """

    n: tuple[int, ...]
    unit: str
    n_items: int
    rep: Float[np.ndarray, " n"]
    entropy: Float[np.ndarray, " n"]
    control_rep: Float[np.ndarray, "draws n"]
    control_entropy: Float[np.ndarray, "draws n"]
    rep_score: float
    repeated_sentences: float
    consecutive_sentences: float

    @property
    def repetitive(self) -> bool:
        """Whether the Rep Score is at least 0.4, the threshold of Yao et al. 2025."""
        return self.rep_score >= metrics.REPETITIVE

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """rep-n against n, and the range of the shuffled text."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig = go.Figure()
        fig.add_bar(x=list(self.n), y=self.rep, name="this text", marker={"color": figures.colors(template)[0]})
        middle = self.control_rep.mean(0)
        reach = {"array": self.control_rep.max(0) - middle, "arrayminus": middle - self.control_rep.min(0)}
        fig.add_bar(
            x=list(self.n),
            y=middle,
            error_y={"type": "data", "symmetric": False, **reach},
            name="shuffled",
            marker={"color": figures.CONTROL_COLOR, "pattern": {"shape": "/"}},
        )
        fig.update_xaxes(title_text=f"n ({self.unit} in a row)", tickmode="array", tickvals=list(self.n))
        fig.update_yaxes(title_text="rep-n (share of n-grams that are not new)", range=[0, 1])
        subtitle = f"Rep Score {self.rep_score:.3f} (0.4 and more is repetitive); shuffled: mean and range"
        fig.update_layout(
            title={"text": f"Repetition of a text of {self.n_items} {self.unit}", "subtitle": {"text": subtitle}},
            margin={"t": 84},
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per n: rep, entropy, and the mean of both over the shuffled texts."""
        import pandas

        return pandas.DataFrame(
            {
                "n": self.n,
                "rep": self.rep,
                "entropy": self.entropy,
                "rep_shuffled": self.control_rep.mean(0),
                "entropy_shuffled": self.control_entropy.mean(0),
            }
        )

    def summary(self) -> str:
        """Every measure on one line each."""
        pairs = zip(self.n, self.rep, self.entropy, self.control_rep.mean(0), strict=True)
        lines = [f"{self.n_items} {self.unit}; Rep Score {self.rep_score:.3f}"]
        lines += [
            f"  rep-{n} {rep:.3f} (shuffled {null:.3f}), entropy {entropy:.3f}" for n, rep, entropy, null in pairs
        ]
        lines.append(
            f"  sentences: {self.repeated_sentences:.3f} repeat an earlier one, {self.consecutive_sentences:.3f} the "
            "one before"
        )
        return "\n".join(lines)


def text_repetition(
    text: str | Sequence[int],
    model: Any = None,
    *,
    n: Sequence[int] = (1, 2, 3, 4),
    n_shuffled: int = 20,
    seed: int = 0,
) -> TextRepetition:
    """Measure `text`: over its words, or over tokens where `model` is given (or token ids are).

    Raises ValueError for a text shorter than the longest n-gram, or fewer than one shuffled draw.
    """
    if n_shuffled < 1:
        raise ValueError(f"{n_shuffled} shuffled draws were asked for; a number needs its control: give 1 or more")
    items, unit = _items(text, model)
    rng = np.random.default_rng(seed)
    draws = [[items[i] for i in rng.permutation(len(items))] for _ in range(n_shuffled)]
    written = _written(text, model)
    parts = metrics.sentences(written) if written is not None else []
    repeated, consecutive = metrics.sentence_repetition(parts) if parts else (np.nan, np.nan)
    return TextRepetition(
        n=tuple(n),
        unit=unit,
        n_items=len(items),
        rep=np.array([metrics.rep_n(items, k) for k in n]),
        entropy=np.array([metrics.information_entropy(items, k) for k in n]),
        control_rep=np.array([[metrics.rep_n(d, k) for k in n] for d in draws]),
        control_entropy=np.array([[metrics.information_entropy(d, k) for k in n] for d in draws]),
        rep_score=float(metrics.rep_score(written)) if written is not None and written.split() else float("nan"),
        repeated_sentences=float(repeated),
        consecutive_sentences=float(consecutive),
        provenance=Provenance(
            model="no model: words" if model is None else model.model_name,
            weights_hash=None if model is None else model.weights_hash(),
            seed=seed,
            settings={"text": text if isinstance(text, str) else [int(t) for t in text], "n": list(n)},
            control=_CONTROL.format(n_shuffled),
        ),
    )


def _items(text: str | Sequence[int], model: Any) -> tuple[list[Hashable], str]:
    if not isinstance(text, str):
        return [int(t) for t in text], "tokens"
    if model is None:
        return list(text.split()), "words"
    return model.tokenize(text)[0][0].tolist(), "tokens"


def _written(text: str | Sequence[int], model: Any) -> str | None:
    if isinstance(text, str):
        return text
    return None if model is None or model.tokenizer is None else str(model.to_string([int(t) for t in text]))
