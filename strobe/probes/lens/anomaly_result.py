"""`TrajectoryAnomaly`: how well prompts that are not like the clean ones stand out by their prediction trajectory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class TrajectoryAnomaly(Result):
    """Axes: detector as in `detectors`; judged prompt, first clean ones that no detector was fitted on.

    `scores` [detector, prompt]: larger is stranger; each detector has its own scale. `strange` [prompt]: the truth.
    `auroc` [detector]: the chance that a strange prompt scores above a clean one, and `interval` [2, detector] its 95 %
    bootstrap over prompts. `control` [detector]: the AUROC of the second half of the clean judged prompts against the
    first half, where nothing is to be found. `n_fitted`: clean prompts that detectors were fitted on.
    """

    detectors: tuple[str, ...]
    scores: Float[np.ndarray, "detector prompt"]
    strange: Bool[np.ndarray, " prompt"]
    auroc: Float[np.ndarray, " detector"]
    interval: Float[np.ndarray, "2 detector"]
    control: Float[np.ndarray, " detector"]
    n_fitted: int

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """AUROC of each detector with its interval, beside clean against clean."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig, places = go.Figure(), np.arange(len(self.detectors))
        bars = {
            "type": "data", "symmetric": False, "array": self.interval[1] - self.auroc,
            "arrayminus": self.auroc - self.interval[0],
        }  # fmt: skip
        for i, (name, values, spread) in enumerate(
            (("strange against clean", self.auroc, bars), ("control: clean against clean", self.control, None))
        ):
            color = figures.CONTROL_COLOR if i else figures.colors(template)[0]
            marker = {"symbol": figures.SYMBOLS[i], "size": 10, "color": color}
            fig.add_scatter(x=values, y=places, mode="markers", name=name, marker=marker, error_x=spread)
        fig.add_vline(x=0.5, line={"dash": "dash", "width": 1}, annotation_text="chance")
        fig.update_yaxes(tickmode="array", tickvals=places, ticktext=list(self.detectors), autorange="reversed")
        fig.update_xaxes(title_text="AUROC", range=[0, 1.02])
        n = int(self.strange.sum())
        said = f"{n} strange and {len(self.strange) - n} clean prompts, fitted on {self.n_fitted} others"
        fig.update_layout(title={"text": "Strange prompts by their trajectory", "subtitle": {"text": said}})
        fig.update_layout(margin={"t": 96})
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per detector and prompt: its score and whether it is strange."""
        import pandas

        detector, prompt = (a.ravel() for a in np.indices(self.scores.shape))
        return pandas.DataFrame(
            {
                "detector": np.array(self.detectors, dtype=object)[detector],
                "prompt": prompt,
                "score": self.scores.ravel(),
                "strange": self.strange[prompt],
            }
        )

    def summary(self) -> str:
        """AUROC of each detector, its interval and the control."""
        n = int(self.strange.sum())
        lines = [f"{n} strange and {len(self.strange) - n} clean prompts; fitted on {self.n_fitted} other clean ones"]
        for i, name in enumerate(self.detectors):
            low, high = self.interval[:, i]
            lines.append(
                f"  {name}: AUROC {self.auroc[i]:.3f} ({low:.3f} to {high:.3f}); clean against clean "
                f"{self.control[i]:.3f}"
            )
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
