"""What a changed carry did to the predictions, beside the untouched run and random edits of the same norm."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class StateIntervention(Result):
    """What a changed carry does to the predictions, beside the untouched run and random edits of the same norm.

    `runs`: "untouched", "edited", "random 1", ... `tokens`: the text, and where the edit is at its last token the one
    token that every run goes on with. `kl` [runs, time]: KL(untouched || run) in nats of the prediction made at each
    token; NaN up to `position`, which no edit can reach. `first_probabilities`, `end_probabilities` [runs, k]:
    next-token probabilities at the first prediction the edit reaches and at the last token, of the tokens that are
    likely in the untouched or the edited run. `continuations`: new tokens of untouched, edited and random 1, sampled
    with the same noise. `carry_norm` and `edit_norm`: Euclidean norms of the memory before and of the change.
    """

    tokens: list[str]
    position: int
    layer: int
    edit: str
    runs: list[str]
    kl: Float[np.ndarray, "runs time"]
    first_tokens: list[str]
    first_probabilities: Float[np.ndarray, "runs k_first"]
    end_tokens: list[str]
    end_probabilities: Float[np.ndarray, "runs k_end"]
    continuations: list[list[str]]
    carry_norm: float
    edit_norm: float

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        settings = self.provenance.settings
        if (written := settings.get("stopped_after")) is None:
            return ""
        return f"cut short after {written} of {settings['max_new_tokens']} new tokens"

    def figure(
        self, *, at: Literal["first", "end"] = "first", template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Next-token probabilities of all runs, at the first prediction the edit reaches or at the end."""
        from strobe.probes.states import intervention_figures

        return intervention_figures.distributions(self, at=at, template=template)

    def kl_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """How far the predictions are from the untouched run at every later token, with the random edits' range."""
        from strobe.probes.states import intervention_figures

        return intervention_figures.divergence(self, template=template)

    @property
    def first_kl(self) -> Float[np.ndarray, " runs"]:
        """KL(untouched || run) in nats at the first prediction the edit can reach."""
        return self.kl[:, self.position + 1]

    @property
    def end_kl(self) -> Float[np.ndarray, " runs"]:
        """KL(untouched || run) in nats at the last token."""
        return self.kl[:, -1]

    def to_frame(self) -> "pandas.DataFrame":
        """One row per run and token after the edit: run, position, token, kl (nats)."""
        import pandas

        later = range(self.position + 1, len(self.tokens))
        rows = [(run, t, self.tokens[t], self.kl[i, t]) for i, run in enumerate(self.runs) for t in later]
        return pandas.DataFrame(rows, columns=["run", "position", "token", "kl"])

    def summary(self) -> str:
        """The effect in nats beside that of the random edits."""
        lines = [f"{self.edit}; the change has norm {self.edit_norm:.3g}, the carry {self.carry_norm:.3g}"]
        lines += [self.partial] if self.partial else []
        for place, kl in (("first reachable prediction", self.first_kl), ("last token", self.end_kl)):
            lines.append(
                f"{place}: KL {kl[1]:.4g} nats; random edits of that norm: median {np.median(kl[2:]):.4g}, "
                f"{kl[2:].min():.4g} to {kl[2:].max():.4g} ({len(kl) - 2} draws)"
            )
        return "\n".join(lines)
