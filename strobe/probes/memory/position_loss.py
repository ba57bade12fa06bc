"""Loss by position beside the same tokens read afresh: does a long past help, or harm?

Chen et al. 2024 plot the loss by position alone. There what has to be recalled may lie further back the later the
position is, so that a rising curve can be distance and not position. The control here is ours and holds the distance
fixed: the very same tokens, by the same model, from an empty carry every training length. It needs no recurrence.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from strobe.core import figures
from strobe.core.result import Result
from strobe.probes.memory.streaming import (
    PIECE,
    Tick,
    WindowMeans,
    as_inputs,
    next_token_targets,
    pieces,
    train_length_of,
)
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class PositionLoss(Result):
    """`loss` (nats) and `accuracy` [windows] per scored token, windows of `window` tokens; NaN where none was scored.
    `fresh_loss`, `fresh_accuracy`: the same tokens, read from an empty carry every `train_length` tokens. Of a run that
    was cut short, the windows that both had read."""

    train_length: int
    window: int
    loss: Float[np.ndarray, " windows"]
    accuracy: Float[np.ndarray, " windows"]
    fresh_loss: Float[np.ndarray, " windows"]
    fresh_accuracy: Float[np.ndarray, " windows"]

    @property
    def partial(self) -> str:
        """How many of the tokens were read, in words; empty where all were."""
        read, asked = len(self.loss) * self.window, self.provenance.settings.get("time", 0)
        return "" if read >= asked else f"cut short after {read} of {asked} tokens"

    @property
    def forgetting_ratio(self) -> float:
        """Largest window loss beyond the training length over the largest within (Chen et al. 2024: above 2 cannot
        forget). NaN without loss on a side. Of a loss near zero within training it says little: read the accuracy."""
        n = self.train_length // self.window
        inside, beyond = (x[np.isfinite(x)] for x in (self.loss[:n], self.loss[n:]))
        return float(beyond.max() / inside.max()) if inside.size and beyond.size and inside.max() > 0 else float("nan")

    @property
    def harm(self) -> float:
        """Nats per token that the long past costs beyond the training length: mean loss less mean fresh loss. Negative
        where it helps; NaN without loss there."""
        difference = (self.loss - self.fresh_loss)[self.train_length // self.window :]
        return float(np.nanmean(difference)) if np.isfinite(difference).any() else float("nan")

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Loss by position, the fresh reading as control, the training length and the forgetting criterion."""
        import plotly.graph_objects as go

        fig, at = go.Figure(), (np.arange(len(self.loss)) + 1) * self.window
        fig.add_scatter(x=at, y=self.fresh_loss, mode="lines", name="read afresh every training length (control)",
                        line={"color": figures.CONTROL_COLOR, "dash": "dot"})  # fmt: skip
        fig.add_scatter(x=at, y=self.loss, mode="lines", name="one long input",
                        line={"color": figures.colors(template)[0]})  # fmt: skip
        within = self.loss[: self.train_length // self.window]
        if np.isfinite(within).any():
            fig.add_hline(y=2 * float(np.nanmax(within)), line={"color": figures.CONTROL_COLOR, "dash": "dash"},
                          annotation_text="twice the largest within training")  # fmt: skip
        fig.add_vline(x=self.train_length, line={"color": figures.CONTROL_COLOR, "width": 1})
        fig.update_xaxes(title_text="position (tokens)", type="log")
        fig.update_yaxes(title_text="loss (nats per scored token)", rangemode="tozero")
        cost = (
            f"the long past costs {self.harm:+.3g} nats a token beyond {self.train_length} tokens (below 0: it helps)"
        )
        note = "; ".join(filter(None, (self.partial, cost)))
        fig.update_layout(title={"text": "Loss by position", "subtitle": {"text": note}}, margin={"t": 84}, height=400,
                          legend={"y": -0.22, "yanchor": "top", "x": 0, "xanchor": "left"})  # fmt: skip
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per window: its end, loss and accuracy, long and fresh."""
        import pandas

        end = (np.arange(len(self.loss)) + 1) * self.window
        columns = {name: getattr(self, name) for name in ("loss", "fresh_loss", "accuracy", "fresh_accuracy")}
        return pandas.DataFrame({"end": end, **columns})

    def summary(self) -> str:
        """What the long past costs, and the forgetting criterion."""
        lines = [
            f"loss by position over {len(self.loss) * self.window} tokens, training length {self.train_length}",
            f"  beyond it the long past costs {self.harm:+.4g} nats a token against reading afresh (below 0: it helps)",
            f"  largest loss beyond / within training: {self.forgetting_ratio:.3g} (cannot forget above 2)",
            *([f"  {self.partial}"] if self.partial else []),
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def position_loss(
    model: Any,
    inputs: Any,
    *,
    targets: Any = None,
    train_length: int | None = None,
    window: int | None = None,
    piece: int = PIECE,
    progress: Tick | None = None,
    partial: Callable[[PositionLoss], None] | None = None,
) -> PositionLoss:
    """Loss of `inputs` [batch, time] by position, as one long input and afresh every `train_length` tokens.

    `targets` [batch, time] (-100: not scored; None: the next token). `window`: tokens averaged over (None: a quarter
    of the training length). Where `progress` raises, `partial` is given the windows that both readings have
    finished, if any. Raises ValueError for inputs no longer than the training length, or nothing to score.
    """
    import torch

    x = as_inputs(model, inputs)
    length = train_length_of(model, train_length)
    width = max(1, length // 4) if window is None else window
    scored = next_token_targets(x) if targets is None else torch.as_tensor(targets).to(x.device).reshape(x.shape[:2])
    if x.shape[1] <= length or scored is None:
        raise ValueError(
            f"loss beyond a training length of {length} tokens was asked for; found {x.shape[1]} tokens"
            f"{'' if scored is not None else ' and no targets'}; give a longer input, with targets if it is no tokens"
        )
    time = x.shape[1]
    long, fresh = WindowMeans(time, width), WindowMeans(time, width)
    settings = {"train_length": length, "window": width, "batch": x.shape[0], "time": time}

    def result(read: int) -> PositionLoss:
        n = -(-time // width) if read == time else read // width
        return PositionLoss(
            train_length=length,
            window=width,
            loss=long.loss[:n],
            accuracy=long.accuracy[:n],
            fresh_loss=fresh.loss[:n],
            fresh_accuracy=fresh.accuracy[:n],
            provenance=provenance_of(
                model, settings=settings, control="the same tokens from an empty carry every training length"
            ),
        )

    afresh = 0
    tick = keeping(progress, partial, lambda: result(afresh) if afresh >= width else None)
    # The two readings side by side: of a run that is cut short, the control is there as far as it came.
    for part in pieces(model, x, targets=scored, piece=piece):
        long.add(part)
        while afresh < part.stop and (afresh + length <= part.stop or part.stop == time):
            stop = min(afresh + length, time)
            for other in pieces(model, x[:, afresh:stop], targets=scored[:, afresh:stop], piece=piece):
                fresh.add(other.moved(afresh))
            afresh = stop
            tick(part.stop + afresh, 2 * time, "one long input, and afresh")
    return result(time)
