"""Effective remembrance: how much of a prediction still depends on tokens from before position t.

    EffRem_T(t) = TV( q(. | x[0:T]), q(. | x[t:T]) )        TV: total variation, half the sum of |q - q'|

Buitrago & Gu 2025 (arXiv 2507.02782, unexplored states): a model that handles long inputs has forgotten t far from T;
one that fails still depends on the far past. It asks for predictions only, so it applies to any model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int64

from strobe.core import figures
from strobe.core.result import Result
from strobe.probes.memory.streaming import PIECE, Tick, as_inputs, pieces
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class EffectiveRemembrance(Result):
    """`distance` [lengths, contexts]: total variation between the prediction after the last `lengths[i]` tokens and
    after all `time` of them. `control` [contexts]: between the prediction after one context and after another, which is
    what total forgetting of everything but the model would look like."""

    time: int
    lengths: Int64[np.ndarray, " lengths"]
    distance: Float[np.ndarray, "lengths contexts"]
    control: Float[np.ndarray, " contexts"]

    @property
    def partial(self) -> str:
        """How many of the suffixes were tried, in words; empty where all were."""
        asked = len(self.provenance.settings.get("lengths", self.lengths))
        return "" if len(self.lengths) == asked else f"cut short after {len(self.lengths)} of {asked} suffixes"

    @property
    def mean(self) -> Float[np.ndarray, " lengths"]:
        """Mean over contexts."""
        return self.distance.mean(1)

    def horizon(self, level: float = 0.05) -> int | None:
        """The shortest suffix from which on the mean distance stays at or below `level`; None where it never does."""
        below = self.mean <= level
        stays = np.flatnonzero(~below)
        after = 0 if not len(stays) else int(stays[-1]) + 1
        return None if after == len(below) else int(self.lengths[after])

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Total variation against the tokens kept, mean and quartiles over contexts, another context as control."""
        import plotly.graph_objects as go

        fig, colour = go.Figure(), figures.colors(template)[0]
        low, high = np.quantile(self.distance, [0.25, 0.75], axis=1)
        fig.add_scatter(x=np.concatenate([self.lengths, self.lengths[::-1]]), y=np.concatenate([high, low[::-1]]),
                        fill="toself", fillcolor=colour, opacity=0.2, line={"width": 0}, name="quartiles",
                        hoverinfo="skip")  # fmt: skip
        fig.add_scatter(
            x=self.lengths, y=self.mean, mode="lines+markers", name="mean over contexts", line={"color": colour}
        )
        fig.add_hline(y=float(self.control.mean()), line={"color": figures.CONTROL_COLOR, "dash": "dot"},
                      annotation_text="another context (control)")  # fmt: skip
        fig.update_xaxes(title_text="tokens kept before the prediction, T − t", type="log")
        fig.update_yaxes(title_text="total variation to the whole context", range=[0, 1])
        said = f"{self.distance.shape[1]} contexts of {self.time} tokens; Buitrago & Gu 2025"
        note = "; ".join(filter(None, (self.partial, said)))
        fig.update_layout(
            title={"text": "Effective remembrance", "subtitle": {"text": note}}, margin={"t": 84}, height=400
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per suffix length and context."""
        import pandas

        at, context = (a.ravel() for a in np.indices(self.distance.shape))
        return pandas.DataFrame(
            {
                "kept": self.lengths[at],
                "t": self.time - self.lengths[at],
                "context": context,
                "distance": self.distance.ravel(),
            }
        )

    def summary(self) -> str:
        """From how many tokens on the prediction is that of the whole context, beside the control."""
        horizon = self.horizon()
        said = "no suffix tried" if horizon is None else f"the last {horizon} tokens"
        lines = [
            f"effective remembrance of {self.distance.shape[1]} contexts of {self.time} tokens",
            f"  within .05 of the whole context's prediction: {said}",
            f"  after {self.lengths[0]} tokens {self.mean[0]:.3f}, after {self.lengths[-1]} {self.mean[-1]:.3f}; "
            f"another context (control) {self.control.mean():.3f}",
            *([f"  {self.partial}"] if self.partial else []),
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def log_spaced(time: int, n: int = 30) -> list[int]:
    """Up to `n` different suffix lengths from 1 to `time` - 1, evenly spaced in the logarithm."""
    return sorted({round(float(v)) for v in np.geomspace(1, max(time - 1, 1), n)})


def effective_remembrance(
    model: Any,
    contexts: Any,
    *,
    lengths: Sequence[int] | None = None,
    progress: Tick | None = None,
    partial: Callable[[EffectiveRemembrance], None] | None = None,
) -> EffectiveRemembrance:
    """EffRem of the prediction after `contexts` [contexts, time], of suffixes of `lengths` (None: 30, log-spaced).

    The control compares each context's prediction with the next one's. Where `progress` raises, `partial` is given
    the result of the suffixes that were tried. Raises ValueError for fewer than two contexts or a suffix that is not
    shorter than the context.
    """
    x = as_inputs(model, contexts)
    rows, time = x.shape[:2]
    chosen = log_spaced(time) if lengths is None else sorted(set(lengths))
    if rows < 2 or not chosen or chosen[0] < 1 or chosen[-1] >= time:
        raise ValueError(
            f"suffixes of {chosen[:1]} to {chosen[-1:]} tokens of {rows} contexts of {time} were asked for; give two "
            "contexts at least, and suffixes of 1 token up to one less than all"
        )
    whole = _prediction(model, x)
    found: list[np.ndarray] = []

    def result() -> EffectiveRemembrance:
        settings = {"contexts": rows, "time": time, "lengths": chosen}
        return EffectiveRemembrance(
            time=time,
            lengths=np.array(chosen[: len(found)], dtype=np.int64),
            distance=np.stack(found),
            control=_variation(whole, np.roll(whole, 1, 0)),
            provenance=provenance_of(model, settings=settings, control="another context's prediction"),
        )

    tick = keeping(progress, partial, result)
    for i, length in enumerate(chosen):
        found.append(_variation(whole, _prediction(model, x[:, time - length :])))
        tick(i + 1, len(chosen), f"the last {length} tokens")
    return result()


def _prediction(model: Any, x: Any) -> np.ndarray:
    last = None
    for part in pieces(model, x, piece=PIECE):
        last = part.logits[:, -1]
    assert last is not None
    return last.double().softmax(-1).cpu().numpy()


def _variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return 0.5 * np.abs(p - q).sum(1)
