"""The same prompt and the same noise, unsteered, steered and steered at random: what is written, side by side.

Ours, not a paper's. Beside each continuation stands what the unsteered model thinks of it, token by token, so that a
text which is only broken can be told from one that is steered.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result
from strobe.models.generation import generate_stream
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of
from strobe.probes.side_by_side import draw_each, surprise, words_of
from strobe.probes.steering.apply import Steering, Where
from strobe.probes.steering.contrast import token_row
from strobe.probes.steering.vector import SteeringVector

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

Tick = Callable[[int, int, str], None]
Written = Callable[[list[list[str]]], None]


@dataclass(frozen=True)
class SteeredText(Result):
    """Continuations of one prompt: `runs` are "unsteered", "steered", "random 1", ...

    `continuations`: by run, the text of each new token. `surprise` [runs, new tokens]: nats of each new token under the
    unsteered model, given the run's own text; NaN after a text has ended.
    """

    prompt: list[str]
    runs: list[str]
    continuations: list[list[str]]
    surprise: Float[np.ndarray, "runs time"]
    steering: str

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        written, asked = self.surprise.shape[1], int(self.provenance.settings["max_new_tokens"])
        return "" if written == asked else f"cut short after {written} of {asked} new tokens"

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """What the unsteered model thinks of each continuation, token by token, as a mean up to there."""
        import plotly.graph_objects as go

        from strobe.core import figures

        palette, fig = figures.colors(template), go.Figure()
        at = np.arange(1, self.surprise.shape[1] + 1)
        for i, run in enumerate(self.runs):
            control = i > 1
            fig.add_scatter(
                x=at,
                y=np.cumsum(self.surprise[i]) / at,
                name=run if i < 3 else None,
                showlegend=i < 3,
                mode="lines",
                line={
                    "color": figures.CONTROL_COLOR if control else palette[i],
                    "dash": figures.DASHES[min(i, 2)],
                    "width": 1 if control else 2,
                },
            )
        fig.update_xaxes(title_text="new token")
        fig.update_yaxes(title_text="mean surprise so far (nats per token)", rangemode="tozero")
        fig.update_layout(
            title={
                "text": "What the unsteered model thinks of each continuation",
                "subtitle": {"text": f"{self.steering}; grey: random directions of equal norm"},
            },
            margin={"t": 84},
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per run and new token: run, index, token, surprise (nats)."""
        import pandas

        rows = [
            (run, i, token, self.surprise[r, i])
            for r, run in enumerate(self.runs)
            for i, token in enumerate(self.continuations[r])
        ]
        return pandas.DataFrame(rows, columns=["run", "index", "token", "surprise"])

    def summary(self) -> str:
        """Each run's continuation with the unsteered model's mean surprise."""
        lines = [f"{''.join(self.prompt)!r}, {self.steering}"]
        for i, run in enumerate(self.runs):
            mean = np.nanmean(self.surprise[i]) if self.continuations[i] else np.nan
            lines.append(f"  {run}: {''.join(self.continuations[i])!r} ({mean:.3g} nats per token unsteered)")
        return "\n".join(lines)


def steered_text(
    model: Any,
    prompt: str | Sequence[int],
    vectors: SteeringVector | Sequence[SteeringVector],
    multiplier: float,
    *,
    layers: int | Sequence[int] | None = None,
    where: Where | None = None,
    max_new_tokens: int = 40,
    temperature: float = 0.7,
    n_random: int = 2,
    seed: int = 0,
    progress: Tick | None = None,
    written: Written | None = None,
    partial: Callable[[SteeredText], None] | None = None,
) -> SteeredText:
    """Continue `prompt` unsteered, steered, and by `n_random` random directions of equal norm, all with one seed.

    The runs go on side by side, a token each in turn: `written` is given what every one of them has so far, as the text
    of each new token. Where `progress` raises, `partial` is given the texts as far as they had come. `where`: None for
    the last prompt token and all that follows. Raises ValueError as `Steering` does, and for fewer than one random
    direction or new token.
    """
    if n_random < 1 or max_new_tokens < 1:
        raise ValueError(f"{n_random} random directions and {max_new_tokens} new tokens: give one of each at least")
    given = [vectors] if isinstance(vectors, SteeringVector) else list(vectors)
    chosen = where if where is not None else Where("from", start=-1)
    drawn = [[v.random(seed * 1000 + i) for v in given] for i in range(1, n_random + 1)]
    runs = [Steering(model, some, multiplier, layers=layers, where=chosen) for some in (given, *drawn)]
    row = token_row(model, prompt)
    tokens = row[None].to(next(model.parameters()).device)
    drawing = {"temperature": temperature, "seed": seed}
    streams = [generate_stream(model, tokens, max_new_tokens, **drawing)]
    streams += [run.generate_stream(tokens, max_new_tokens, **drawing) for run in runs]
    drawn_ids: list[list[int]] = [[] for _ in streams]
    used = [v if layers is None else v.only([layers] if isinstance(layers, int) else layers) for v in given]
    places = ", ".join(f"{v.operation} at {v.point} of layers {', '.join(map(str, v.layers))}" for v in used)
    settings = {
        "prompt": prompt if isinstance(prompt, str) else [int(t) for t in prompt], "multiplier": float(multiplier),
        "layers": sorted({layer for v in used for layer in v.layers}), "where": str(chosen),
        "max_new_tokens": max_new_tokens, "temperature": temperature,
        "vectors": [{k: v.header()[k] for k in ("point", "method", "norm", "selector")} for v in given],
    }  # fmt: skip

    def result(n: int) -> SteeredText:
        """Of the first `n` new tokens, which is how far all have come; a text may have ended before."""
        surprises = np.full((len(streams), n), np.nan)
        for i, ids in enumerate(drawn_ids):
            surprises[i, : len(ids)] = surprise(model, row, ids)
        return SteeredText(
            prompt=words_of(model, row),
            runs=["unsteered", "steered", *(f"random {i + 1}" for i in range(n_random))],
            continuations=[words_of(model, ids) for ids in drawn_ids],
            surprise=surprises,
            steering=f"{places}, multiplier {multiplier:g}",
            provenance=provenance_of(
                model, seed=seed, settings=settings, control=f"random directions of equal norm, {n_random} draws"
            ),
        )

    tick = keeping(progress, partial, lambda: result(i) if i else None)
    for i in range(max_new_tokens):
        tick(i, max_new_tokens, "continuing side by side")
        draw_each(streams, drawn_ids)
        if written is not None:
            written([words_of(model, ids) for ids in drawn_ids])
    return result(max_new_tokens)
