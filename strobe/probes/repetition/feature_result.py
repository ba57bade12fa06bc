"""`RepetitionFeatures`: what each candidate does when turned up and taken out, beside ordinary features."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

from strobe.core.result import Result
from strobe.probes.repetition.metrics import REPETITIVE

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


# (name, unit): the first is Yao et al. 2025's, the second ours.
MEASURES = (("Rep Score", "rep-1 of words"), ("rep-4", "rep-4 of tokens"))


@dataclass(frozen=True)
class RepetitionFeatures(Result):
    """Features of the autoencoder at `hook_name` that may make the model repeat itself.

    `features`, `ranked_by`: the candidates and what brought each here; `ordinary`: the control beside each. Of every
    feature, as `strobe.probes.repetition.ranking.Ranking`: `delta`, `projection`, `density`, `largest`.

    Of continuations, by `MEASURES`: `base_scores` [measure, prompt] untouched; `scores`, `ordinary_scores` [measure,
    candidate, prompt] with one feature turned up. `texts`: the first prompt's, untouched and then with each candidate.
    `loop_scores` [measure, 3, loop]: of loops continued untouched, without the `deactivated` features, without their
    ordinary ones; `held_out_loss` [3, row]: nats per token likewise. NaN where a run was stopped before them.
    """

    hook_name: str
    features: Int[np.ndarray, " candidate"]
    ranked_by: list[str]
    ordinary: Int[np.ndarray, " candidate"]
    delta: Float[np.ndarray, " d_sae"]
    projection: Float[np.ndarray, " d_sae"]
    density: Float[np.ndarray, " d_sae"]
    largest: Float[np.ndarray, " d_sae"]
    base_scores: Float[np.ndarray, "measure prompt"]
    scores: Float[np.ndarray, "measure candidate prompt"]
    ordinary_scores: Float[np.ndarray, "measure candidate prompt"]
    texts: list[str]
    loop_scores: Float[np.ndarray, "measure 3 loop"]
    held_out_loss: Float[np.ndarray, "3 row"]

    @property
    def threshold(self) -> Float[np.ndarray, " measure"]:
        """What a mean score has to exceed: the untouched model's, every ordinary feature's."""
        return np.maximum(self.base_scores.mean(1), self.ordinary_scores.mean(2).max(1))

    @property
    def confirmed_by(self) -> Bool[np.ndarray, "measure candidate"]:
        """Whether a candidate's mean is 0.4 or more (Yao et al., of the Rep Score) and above the threshold (ours)."""
        mean = self.scores.mean(2)
        return np.logical_and(mean >= REPETITIVE, mean > self.threshold[:, None])

    @property
    def confirmed(self) -> Bool[np.ndarray, " candidate"]:
        """Whether a candidate is confirmed by either measure."""
        return np.asarray(self.confirmed_by.any(0))

    @property
    def expected_by_chance(self) -> float:
        """How many candidates would clear the bar, at most, if they were ordinary features themselves: of n candidates
        and n ordinary features drawn alike, n / (n + 1) are above the highest ordinary one, by each measure."""
        n = len(self.features)
        return len(MEASURES) * n / (n + 1)

    @property
    def p_values(self) -> Float[np.ndarray, " measure"]:
        """One-sided Wilcoxon signed-rank test of the candidates' means against their own ordinary features', by
        measure: do candidates as a group make the model repeat itself more? NaN for fewer than two."""
        from scipy.stats import wilcoxon

        difference = self.scores.mean(2) - self.ordinary_scores.mean(2)
        if difference.shape[1] < 2 or not difference.any(1).all():
            return np.full(len(MEASURES), np.nan)
        tests: list[Any] = [wilcoxon(row, alternative="greater") for row in difference]
        return np.array([float(test.pvalue) for test in tests])

    @property
    def deactivated(self) -> list[int]:
        """The features that are ablated together: the confirmed ones; all candidates where none is confirmed."""
        here = self.features[self.confirmed]
        return [int(i) for i in (here if len(here) else self.features)]

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Both measures with each candidate turned up, beside its ordinary feature and the untouched model."""
        from plotly.subplots import make_subplots

        from strobe.core import figures

        at, n = np.arange(len(self.features)), self.scores.shape[2]
        fig = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06)
        for m, (name, unit) in enumerate(MEASURES):
            for values, said, color, symbol in (
                (self.ordinary_scores[m], "its ordinary feature", figures.CONTROL_COLOR, "square-open"),
                (self.scores[m], "candidate turned up", figures.colors(template)[0], "circle"),
            ):
                reach = 1.96 * values.std(1, ddof=1) / np.sqrt(n) if n > 1 else None
                fig.add_scatter(
                    x=at, y=values.mean(1), mode="markers", name=said, legendgroup=said, showlegend=m == 0,
                    marker={"color": color, "symbol": symbol, "size": 9}, row=m + 1, col=1,
                    error_y={"type": "data", "array": reach, "width": 2} if reach is not None else None,
                )  # fmt: skip
            panel: dict[str, Any] = {"row": m + 1, "col": 1}
            fig.add_hline(y=float(self.base_scores[m].mean()), line={"dash": "dashdot", "width": 1}, **panel)
            fig.add_hline(y=REPETITIVE, line={"dash": "dot", "width": 1}, **panel)
            fig.update_yaxes(title_text=f"{name}<br>({unit})", range=[0, 1.05], **panel)
        labels = [f"{i}{' ✓' if c else ''}" for i, c in zip(self.features, self.confirmed, strict=True)]
        fig.update_xaxes(tickmode="array", tickvals=at, ticktext=labels)
        fig.update_xaxes(title_text="feature (✓ confirmed)", row=2, col=1)
        subtitle = f"mean and 95 % interval over {n} prompts; dash-dotted: untouched; dotted: 0.4, called repetitive"
        fig.update_layout(
            title={"text": f"Features turned up at {self.hook_name}", "subtitle": {"text": subtitle}},
            margin={"t": 84}, height=560,
        )  # fmt: skip
        return figures.style(fig, template)

    def ablation_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """What ablating does to loops that go on, and to the loss on held-out text."""
        from plotly.subplots import make_subplots

        from strobe.core import figures

        fig = make_subplots(rows=1, cols=3, horizontal_spacing=0.1)
        names = ["untouched", "ablated", "ordinary"]
        colors = [figures.CONTROL_COLOR, figures.colors(template)[0], figures.CONTROL_COLOR]
        panels = [
            (scores, f"{name} of loops that go on")
            for scores, (name, _) in zip(self.loop_scores, MEASURES, strict=True)
        ]
        for column, (values, unit) in enumerate([*panels, (self.held_out_loss, "held-out loss (nats per token)")], 1):
            fig.add_bar(
                x=names, y=values.mean(1), marker={"color": colors, "pattern": {"shape": ["", "", "/"]}},
                showlegend=False, row=1, col=column,
            )  # fmt: skip
            fig.update_yaxes(title_text=unit, rangemode="tozero", row=1, col=column)
        which = "confirmed features" if self.confirmed.any() else "candidates, none of them confirmed,"
        subtitle = f"{len(self.deactivated)} {which} ablated, or as many ordinary ones; the autoencoder's error is kept"
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
                "rep_score": self.scores[0].mean(1),
                "rep_4": self.scores[1].mean(1),
                "ordinary": self.ordinary,
                "ordinary_density": self.density[self.ordinary],
                "ordinary_rep_score": self.ordinary_scores[0].mean(1),
                "ordinary_rep_4": self.ordinary_scores[1].mean(1),
                "confirmed": self.confirmed,
            }
        )

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        if np.isfinite(self.loop_scores).all():
            return ""
        # An autoencoder may have fewer features to try than were asked for.
        asked = self.provenance.settings.get("n_candidates", "more")
        return f"cut short after {len(self.features)} of {asked} candidates, before any was ablated"

    def summary(self) -> str:
        """How many are confirmed, the strongest, and what ablation does to loops and to held-out text."""
        found = [int(i) for i in self.features[self.confirmed]]
        lines = [
            f"{self.hook_name}: {len(found)} of {len(self.features)} candidates confirmed"
            + (f": {', '.join(map(str, found))}" if found else "; no repetition feature was found")
        ]
        lines.append(
            f"  were they ordinary features, {self.expected_by_chance:.1f} at most would clear that bar by chance"
        )
        for m, (name, unit) in enumerate(MEASURES):
            mean, null = self.scores[m].mean(1), self.ordinary_scores[m].mean(1)
            top = ", ".join(f"{self.features[i]}: {mean[i]:.3f}" for i in np.argsort(-mean)[:5])
            lines.append(
                f"  {name} ({unit}) untouched {self.base_scores[m].mean():.3f}; turned up {top}; the highest of "
                f"{len(null)} ordinary features {null.max():.3f}; all candidates against all ordinary ones: p = "
                f"{self.p_values[m]:.3g}"
            )
        if np.isfinite(self.loop_scores).all():
            n = len(self.deactivated)
            for scores, (name, _) in zip(self.loop_scores.mean(2), MEASURES, strict=True):
                lines.append(
                    f"  {name} of loops that go on: {scores[0]:.3f}; {scores[1]:.3f} without {n} features, "
                    f"{scores[2]:.3f} without as many ordinary ones"
                )
            loss = self.held_out_loss.mean(1)
            lines.append(f"  held-out loss: {loss[0]:.4f}, {loss[1]:.4f}, {loss[2]:.4f} nats per token")
        else:
            lines.append(f"  {self.partial}: a partial result")
        return "\n".join(lines)
