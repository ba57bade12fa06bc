"""`LogitAttribution`: what each component adds to the difference of two answers' logits, beside random pairs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class LogitAttribution(Result):
    """Logits of the answer less those of the other, shared out. Units: logits (nats).

    `components`: "embed", "0 mixer", "0 mlp", ..., in the order in which they write; "3 rest" is what block 3 adds
    besides. `layers`: their block, -1 for the embedding. `constant` [prompt]: the biases of final norm and
    unembedding. `unscaled`: the same without dividing by the final norm's scale, as Yao et al. 2025's code has it;
    it does not add up. `logit_difference` [prompt]: the model's own. `control` [pair, component]: contributions to
    the difference of two random tokens, mean over prompts. `transformed`: whether the model changes its logits
    afterwards (a soft cap, a scale); it is the logits before that which are shared out.
    """

    components: list[str]
    layers: Int[np.ndarray, " component"]
    contributions: Float[np.ndarray, "prompt component"]
    constant: Float[np.ndarray, " prompt"]
    unscaled: Float[np.ndarray, "prompt component"]
    logit_difference: Float[np.ndarray, " prompt"]
    control: Float[np.ndarray, "pair component"]
    labels: list[tuple[str, str]]
    transformed: bool

    @property
    def total(self) -> Float[np.ndarray, " prompt"]:
        """The sum over components and the constant: the logit difference, to rounding."""
        return self.contributions.sum(1) + self.constant

    @property
    def accumulated(self) -> Float[np.ndarray, "prompt component"]:
        """The difference that the residual stream holds after each component, under the final norm's scale."""
        return np.cumsum(self.contributions, 1) + self.constant[:, None]

    def figure(self, *, accumulated: bool = False, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """What each component adds (or has been added up to it), mean over prompts, with the reach of random pairs."""
        import plotly.graph_objects as go

        from strobe.core import figures

        values = self.accumulated if accumulated else self.contributions
        null = np.cumsum(self.control, 1) if accumulated else self.control
        at, color = np.arange(len(self.components)), figures.colors(template)[0]
        fig = go.Figure()
        low, high = np.quantile(null, [0.025, 0.975], axis=0)
        fig.add_bar(
            x=at,
            y=high - low,
            base=low,
            name="95 % of random pairs",
            marker={"color": figures.CONTROL_COLOR},
            opacity=0.5,
        )
        for i, row in enumerate(values if len(values) > 1 else []):
            fig.add_scatter(
                x=at, y=row, mode="markers", marker={"color": color, "size": 4, "symbol": "circle-open"},
                name="each prompt", legendgroup="each", showlegend=i == 0,
            )  # fmt: skip
        name = "mean over prompts" if len(values) > 1 else "this prompt"
        mode = "lines+markers" if accumulated else "markers"
        fig.add_scatter(x=at, y=values.mean(0), mode=mode, marker={"color": color, "size": 9}, name=name)
        fig.add_hline(y=0, line={"width": 1})
        fig.update_xaxes(title_text="component", tickmode="array", tickvals=at, ticktext=self.components)
        fig.update_yaxes(title_text="logit difference (nats)")
        what = "Logit difference accumulated through the components" if accumulated else "Direct logit attribution"
        subtitle = (
            f"{self._difference()}: {self.logit_difference.mean():+.3g}, of which constant {self.constant.mean():+.3g}"
        )
        fig.update_layout(
            title={"text": what, "subtitle": {"text": subtitle}}, margin={"t": 84}, barmode="overlay",
        )  # fmt: skip
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per prompt and component: contribution, unscaled, accumulated, and random pairs' root mean square."""
        import pandas

        prompt, component = (a.ravel() for a in np.indices(self.contributions.shape))
        return pandas.DataFrame(
            {
                "prompt": prompt,
                "answer": [self.labels[p][0] for p in prompt],
                "other": [self.labels[p][1] for p in prompt],
                "component": [self.components[c] for c in component],
                "layer": self.layers[component],
                "contribution": self.contributions.ravel(),
                "accumulated": self.accumulated.ravel(),
                "unscaled": self.unscaled.ravel(),
                "random_rms": np.sqrt((self.control**2).mean(0))[component],
            }
        )

    def summary(self) -> str:
        """The total and its check, and the strongest components beside random pairs."""
        mean, null = self.contributions.mean(0), np.sqrt((self.control**2).mean(0))
        missing = np.abs(self.total - self.logit_difference).max()
        lines = [
            f"{self._difference()}: {self.logit_difference.mean():+.4g} nats over {len(self.labels)} prompts; the "
            f"components add up to it within {missing:.2g}"
        ]
        lines += [
            f"  {self.components[c]}: {mean[c]:+.3g} (random pairs: root mean square {null[c]:.3g})"
            for c in np.argsort(-np.abs(mean))[:6]
        ]
        lines.append(f"  constant: {self.constant.mean():+.3g}")
        if self.transformed:
            lines.append("  these are logits before the model's own transform of them (soft cap or scale)")
        return "\n".join(lines)

    def _difference(self) -> str:
        from strobe.core.tokens import escape_plotly, show

        def said(word: str) -> str:
            return escape_plotly(show(word, 16))

        if len(set(self.labels)) > 1:
            return "logit of each answer less that of its other"
        answer, other = self.labels[0]
        return f"logit of {said(answer)} less that of {said(other)}"
