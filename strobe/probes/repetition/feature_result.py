"""`RepetitionFeatures`: what each candidate does when turned up and taken out, beside ordinary features."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from strobe.core.result import Result
from strobe.probes.repetition.metrics import REPETITIVE

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class RepetitionFeatures(Result):
    """Features of the autoencoder at `hook_name` that may make the model repeat itself.

    `features`, `ranked_by`: the candidates and what brought each here; `ordinary`: the control beside each. Of every
    feature, as `strobe.probes.repetition.ranking.Ranking`: `delta`, `projection`, `density`, `largest`.

    Rep Scores of continuations: `base_scores` [prompt] untouched; `scores`, `ordinary_scores` [candidate, prompt] with
    one feature turned up. `texts`: the first prompt's, untouched and then with each candidate. `loop_scores` [3, loop]:
    of loops continued untouched, without the `deactivated` features, without their ordinary ones; `held_out_loss`
    [3, row]: nats per token likewise. NaN where a run was stopped before it came to them.
    """

    hook_name: str
    features: Int[np.ndarray, " candidate"]
    ranked_by: list[str]
    ordinary: Int[np.ndarray, " candidate"]
    delta: Float[np.ndarray, " d_sae"]
    projection: Float[np.ndarray, " d_sae"]
    density: Float[np.ndarray, " d_sae"]
    largest: Float[np.ndarray, " d_sae"]
    base_scores: Float[np.ndarray, " prompt"]
    scores: Float[np.ndarray, "candidate prompt"]
    ordinary_scores: Float[np.ndarray, "candidate prompt"]
    texts: list[str]
    loop_scores: Float[np.ndarray, "3 loop"]
    held_out_loss: Float[np.ndarray, "3 row"]

    @property
    def threshold(self) -> float:
        """What a mean Rep Score has to exceed: the untouched model's and every ordinary feature's."""
        return float(max(self.base_scores.mean(), self.ordinary_scores.mean(1).max()))

    @property
    def confirmed(self) -> Bool[np.ndarray, " candidate"]:
        """Whether a candidate's mean Rep Score is 0.4 or more (Yao et al.) and above the threshold (ours)."""
        mean = self.scores.mean(1)
        return (mean >= REPETITIVE) & (mean > self.threshold)

    @property
    def deactivated(self) -> list[int]:
        """The features that are ablated together: the confirmed ones; all candidates where none is confirmed."""
        here = self.features[self.confirmed]
        return [int(i) for i in (here if len(here) else self.features)]

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The Rep Score with each candidate turned up, beside its ordinary feature and the untouched model."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig, at, palette = go.Figure(), np.arange(len(self.features)), figures.colors(template)
        n = self.scores.shape[1]
        for values, name, color, symbol in (
            (self.ordinary_scores, "its ordinary feature", figures.CONTROL_COLOR, "square-open"),
            (self.scores, "candidate turned up", palette[0], "circle"),
        ):
            error = 1.96 * values.std(1, ddof=1) / np.sqrt(n) if n > 1 else None
            fig.add_scatter(
                x=at, y=values.mean(1), mode="markers", name=name, marker={"color": color, "symbol": symbol, "size": 9},
                error_y={"type": "data", "array": error, "width": 2} if error is not None else None,
            )  # fmt: skip
        fig.add_hline(y=float(self.base_scores.mean()), line={"dash": "dashdot", "width": 1})
        fig.add_hline(y=REPETITIVE, line={"dash": "dot", "width": 1})
        labels = [f"{i}{' ✓' if c else ''}" for i, c in zip(self.features, self.confirmed, strict=True)]
        fig.update_xaxes(title_text="feature (✓ confirmed)", tickmode="array", tickvals=at, ticktext=labels)
        fig.update_yaxes(title_text="Rep Score of what is written", range=[0, 1.02])
        subtitle = f"mean and 95 % interval over {n} prompts; dash-dotted: untouched; dotted: 0.4, called repetitive"
        fig.update_layout(
            title={"text": f"Features turned up at {self.hook_name}", "subtitle": {"text": subtitle}}, margin={"t": 84}
        )
        return figures.style(fig, template)

    def ablation_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """What ablating does to loops that go on, and to the loss on held-out text."""
        from plotly.subplots import make_subplots

        from strobe.core import figures

        fig = make_subplots(rows=1, cols=2, horizontal_spacing=0.14)
        names = ["untouched", "without them", "without ordinary ones"]
        colors = [figures.CONTROL_COLOR, figures.colors(template)[0], figures.CONTROL_COLOR]
        for column, (values, unit) in enumerate(
            (
                (self.loop_scores, "Rep Score of loops that go on"),
                (self.held_out_loss, "held-out loss (nats per token)"),
            ),
            1,
        ):
            fig.add_bar(
                x=names, y=values.mean(1), marker={"color": colors, "pattern": {"shape": ["", "", "/"]}},
                showlegend=False, row=1, col=column,
            )  # fmt: skip
            fig.update_yaxes(title_text=unit, rangemode="tozero", row=1, col=column)
        which = "confirmed features" if self.confirmed.any() else "candidates, none of them confirmed,"
        subtitle = f"{len(self.deactivated)} {which} ablated; the autoencoder's error is kept"
        title = {"text": "Mitigation or damage?", "subtitle": {"text": subtitle}}
        fig.update_layout(title=title, margin={"t": 84})
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per candidate: how it was ranked, its mean Rep Score, its control's, and whether it is confirmed."""
        import pandas

        return pandas.DataFrame(
            {
                "feature": self.features,
                "ranked_by": self.ranked_by,
                "delta": self.delta[self.features],
                "projection": self.projection[self.features],
                "density": self.density[self.features],
                "rep_score": self.scores.mean(1),
                "ordinary": self.ordinary,
                "ordinary_density": self.density[self.ordinary],
                "ordinary_rep_score": self.ordinary_scores.mean(1),
                "confirmed": self.confirmed,
            }
        )

    def summary(self) -> str:
        """How many are confirmed, the strongest, and what ablation does to loops and to held-out text."""
        order = np.argsort(-self.scores.mean(1))
        found = [int(i) for i in self.features[self.confirmed]]
        lines = [
            f"{self.hook_name}: {len(found)} of {len(self.features)} candidates confirmed"
            + (f": {', '.join(map(str, found))}" if found else "; no repetition feature was found"),
            f"  Rep Score untouched {self.base_scores.mean():.3f}; the highest of {len(self.ordinary)} ordinary "
            f"features {self.ordinary_scores.mean(1).max():.3f}",
        ]
        lines += [f"  feature {self.features[i]} turned up: {self.scores[i].mean():.3f}" for i in order[:5]]
        if np.isfinite(self.loop_scores).all():
            before, without, ordinary = self.loop_scores.mean(1)
            loss = self.held_out_loss.mean(1)
            lines += [
                f"  loops that go on: Rep Score {before:.3f}, {without:.3f} without {len(self.deactivated)} features, "
                f"{ordinary:.3f} without as many ordinary ones",
                f"  held-out loss: {loss[0]:.4f}, {loss[1]:.4f}, {loss[2]:.4f} nats per token",
            ]
        else:
            lines.append("  stopped before anything was ablated: a partial result")
        return "\n".join(lines)
