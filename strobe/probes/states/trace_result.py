"""The carry of one layer along a text, as it was read: norms, channels, effective attention, the shuffled control."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class StateTrace(Result):
    """The carry of one layer after every token of a text.

    `norms` [time, heads]: Euclidean norm of the memory of each head (one column where the memory has no heads).
    `channels` [time, channels]: the memory itself where it is a vector (`signed`), else the norm of each row (key
    channel) of each head's matrix, heads one after the other. `attention` [heads, query, key]: effective attention, how
    much of token s is in the read of token t (`strobe.kernels.linear`), or None for the reason in `attention_note`.
    `control` [time, heads]: the norms when the same tokens come in a shuffled order.
    """

    tokens: list[str]
    layer: int
    mixer: str
    memory: str
    norms: Float[np.ndarray, "time heads"]
    channels: Float[np.ndarray, "time channels"]
    signed: bool
    control: Float[np.ndarray, "time heads"]
    attention: Float[np.ndarray, "attention_heads time time"] | None
    attention_note: str

    def figure(self, *, per_head: bool = False, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Norm of the carry along the text, whole or a line per head, with the shuffled text as control."""
        from strobe.probes.states import trace_figures

        return trace_figures.norms(self, per_head=per_head, template=template)

    def channel_figure(
        self, *, what: str = "channels", template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Heat map of "channels" (or "heads") against tokens. Raises ValueError for another `what`."""
        from strobe.probes.states import trace_figures

        return trace_figures.channel_map(self, what=what, template=template)

    def attention_figure(
        self, head: int | None = None, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Effective attention of one head, or the mean of |E| over heads. Raises ValueError where there is none."""
        from strobe.probes.states import trace_figures

        return trace_figures.attention(self, head=head, template=template)

    @property
    def norm_changes(self) -> list[float]:
        """How much the norm of the whole memory grew (or shrank) with each token."""
        return np.diff(total_norm(self.norms), prepend=0.0).tolist()

    def to_frame(self) -> "pandas.DataFrame":
        """One row per token and head: position, token, head, norm, norm_shuffled."""
        import pandas

        time, heads = self.norms.shape
        at, head = np.repeat(np.arange(time), heads), np.tile(np.arange(heads), time)
        return pandas.DataFrame(
            {
                "position": at,
                "token": [self.tokens[i] for i in at],
                "head": head,
                "norm": self.norms.ravel(),
                "norm_shuffled": self.control.ravel(),
            }
        )

    def summary(self) -> str:
        """Where the carry is smallest and largest, beside the shuffled control."""
        total, shuffled = total_norm(self.norms), total_norm(self.control)
        return (
            f"carry {self.memory} of layer {self.layer} ({self.mixer}) over {len(self.tokens)} tokens: norm "
            f"{total.min():.3g} to {total.max():.3g}, {total[-1]:.3g} at the end "
            f"(same tokens shuffled: {shuffled[-1]:.3g})"
        )


def total_norm(norms: Float[np.ndarray, "time heads"]) -> Float[np.ndarray, " time"]:
    """The norm of the whole memory from those of its heads."""
    return np.sqrt((norms.astype(np.float64) ** 2).sum(1))
