"""`FeaturePlay`: the same prompt and noise, a feature turned up, a feature ablated, and a control feature turned up.

Ours, not a paper's. The control is a feature of equal activity (`FeatureAtlas.twin`), turned up as much in units of its
own maximum. Beside each continuation stands what the model as it is thinks of it, so that breaking can be told from
steering.
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
from strobe.probes.sae.autoencoder import SparseAutoencoder
from strobe.probes.sae.intervening import feature_hooks
from strobe.probes.side_by_side import draw_each, surprise, words_of
from strobe.probes.steering.contrast import token_row

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

Tick = Callable[[int, int, str], None]
RUNS = ("unsteered", "stimulated", "ablated", "control feature")


@dataclass(frozen=True)
class FeaturePlay(Result):
    """Axis: run as in `RUNS`. `continuations`: the text of each new token. `surprise` [run, new token]: nats of each
    under the model as it is, given the run's own text; NaN after a text has ended. `values`: what feature and control
    were set to."""

    prompt: list[str]
    feature: int
    control_feature: int
    values: tuple[float, float]
    continuations: list[list[str]]
    surprise: Float[np.ndarray, "run time"]

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        written, asked = self.surprise.shape[1], int(self.provenance.settings["max_new_tokens"])
        return "" if written == asked else f"cut short after {written} of {asked} new tokens"

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """What the model as it is thinks of each continuation: mean nats a token up to each new token."""
        import plotly.graph_objects as go

        from strobe.core import figures

        palette, fig = figures.colors(template), go.Figure()
        at = np.arange(1, self.surprise.shape[1] + 1)
        for i, run in enumerate(RUNS):
            color = figures.CONTROL_COLOR if i == 3 else palette[i]
            line = {"color": color, "dash": figures.DASHES[i]}
            fig.add_scatter(x=at, y=np.cumsum(self.surprise[i]) / at, name=run, mode="lines", line=line)
        fig.update_xaxes(title_text="new token")
        fig.update_yaxes(title_text="mean surprise so far (nats per token)", rangemode="tozero")
        text = (
            f"feature {self.feature} set to {self.values[0]:.3g}, or to 0; control: feature {self.control_feature} set "
            f"to {self.values[1]:.3g}{'; ' if self.partial else ''}{self.partial}"
        )
        fig.update_layout(
            title={"text": "What the model as it is thinks of each continuation", "subtitle": {"text": text}},
            margin={"t": 84},
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per run and new token: run, index, token, surprise (nats)."""
        import pandas

        rows = [
            (run, i, token, self.surprise[r, i])
            for r, run in enumerate(RUNS)
            for i, token in enumerate(self.continuations[r])
        ]
        return pandas.DataFrame(rows, columns=["run", "index", "token", "surprise"])

    def summary(self) -> str:
        """Each run's continuation with the model's mean surprise at it."""
        lines = [f"{''.join(self.prompt)!r}, feature {self.feature}, control {self.control_feature}"]
        lines += [f"  {self.partial}"] if self.partial else []
        for i, run in enumerate(RUNS):
            mean = np.nanmean(self.surprise[i]) if self.continuations[i] else np.nan
            lines.append(f"  {run}: {''.join(self.continuations[i])!r} ({mean:.3g} nats per token)")
        return "\n".join(lines)


def feature_play(
    model: Any,
    sae: SparseAutoencoder,
    prompt: str | Sequence[int],
    feature: int,
    value: float | int,
    control: tuple[int, float | int],
    *,
    max_new_tokens: int = 40,
    temperature: float | int = 0.7,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[FeaturePlay], None] | None = None,
) -> FeaturePlay:
    """Continue `prompt` as it is, with `feature` set to `value` on every token, ablated, and with the `control`
    (feature, value) set instead; all with one seed, and a token of each in turn.

    Where `progress` raises, `partial` is given the texts as far as they had come. Raises ValueError for an autoencoder
    of another model, IndexError for a feature that does not exist.
    """
    sae.check(model)
    if max_new_tokens < 1:
        raise ValueError(f"{max_new_tokens} new tokens were asked for; give one at least")
    row = token_row(model, prompt)
    tokens = row[None].to(next(model.parameters()).device)
    hooks = (
        [],
        feature_hooks(sae, {feature: float(value)}),
        feature_hooks(sae, [feature], "ablate"),
        feature_hooks(sae, {control[0]: float(control[1])}),
    )
    # A carry is edited at every token of the prompt too, as an activation is.
    states: Any = {"states": list(range(len(row)))} if sae.site.is_state else {}
    streams = [
        generate_stream(
            model, tokens, max_new_tokens, temperature=temperature, seed=seed, fwd_hooks=installed,
            **(states if installed else {}),
        )
        for installed in hooks
    ]  # fmt: skip
    drawn: list[list[int]] = [[] for _ in streams]
    settings = {
        "prompt": prompt if isinstance(prompt, str) else [int(t) for t in prompt], "feature": feature,
        "value": float(value), "hook_name": sae.hook_name, "sae": sae.weights_hash(),
        "max_new_tokens": max_new_tokens, "temperature": temperature,
    }  # fmt: skip

    def result(n: int) -> FeaturePlay:
        """Of the first `n` new tokens, which is how far all have come; a text may have ended before."""
        surprises = np.full((len(RUNS), n), np.nan)
        for i, ids in enumerate(drawn):
            surprises[i, : len(ids)] = surprise(model, row, ids)
        said = f"feature {control[0]}, of equal activity, set to {float(control[1]):.3g}"
        return FeaturePlay(
            prompt=words_of(model, row),
            feature=feature,
            control_feature=control[0],
            values=(float(value), float(control[1])),
            continuations=[words_of(model, ids) for ids in drawn],
            surprise=surprises,
            provenance=provenance_of(model, seed=seed, settings=settings, control=said),
        )

    tick = keeping(progress, partial, lambda: result(i) if i else None)
    for i in range(max_new_tokens):
        tick(i, max_new_tokens, "continuing four ways, side by side")
        draw_each(streams, drawn)
    return result(max_new_tokens)
