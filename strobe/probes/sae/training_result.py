"""`SaeTraining`: how the training of an autoencoder went."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class SaeTraining(Result):
    """Axis: point, one each ten updates. `vectors` seen so far; `unexplained`: mean squared error over the variance, on
    the training batches since the last point; `l0`: features a vector; `dead`: fraction of features that have not fired
    for long. `control`: the variance that principal components leave unexplained, as many as features may be active.
    """

    vectors: Float[np.ndarray, " point"]
    unexplained: Float[np.ndarray, " point"]
    l0: Float[np.ndarray, " point"]
    dead: Float[np.ndarray, " point"]
    control: float
    seconds: float
    finished: bool

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Unexplained variance and dead features against the vectors seen."""
        import plotly.graph_objects as go

        from strobe.core import figures

        palette, fig = figures.colors(template), go.Figure()
        for i, (name, values) in enumerate((("unexplained variance", self.unexplained), ("dead features", self.dead))):
            line = {"color": palette[i], "dash": figures.DASHES[i]}
            fig.add_scatter(x=self.vectors, y=values, name=name, mode="lines", line=line)
        grey = {"color": figures.CONTROL_COLOR, "dash": "dot"}
        n = len(self.vectors)
        fig.add_scatter(x=self.vectors, y=[self.control] * n, name="control (PCA)", mode="lines", line=grey)
        fig.update_xaxes(title_text="vectors seen")
        fig.update_yaxes(title_text="fraction", rangemode="tozero")
        fig.update_layout(title_text="Training of the autoencoder, on its training batches")
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per point."""
        import pandas as pd

        columns = {n: getattr(self, n) for n in ("vectors", "unexplained", "l0", "dead")}
        return pd.DataFrame({**columns, "control": self.control})

    def summary(self) -> str:
        """Where it ended, in words."""
        return (
            f"Training of an autoencoder{'' if self.finished else ' (stopped early)'}: {self.vectors[-1]:.0f} vectors "
            f"in {self.seconds:.0f} s; unexplained {self.unexplained[-1]:.3f} of the variance "
            f"(PCA {self.control:.3f}), "
            f"{self.l0[-1]:.1f} features a vector, {self.dead[-1]:.1%} dead"
        )
