"""`DepthDynamics`: how tokens move through a model's blocks, and which blocks do alike."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result
from strobe.probes.depth.phases import Phases, phases, shuffled_shares

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

Of = Literal["state", "update"]


@dataclass(frozen=True)
class DepthDynamics(Result):
    """Axes: depth 0..L (0 before the first block); block 0..L-1; token. Every measure has its ``_control`` beside it.

    `convergence`: cos(h_l, h_L). `speed`: angle between h_l and h_l+1, degrees a block. `similarity_state`,
    `similarity_update`: mean over tokens of the cosine of two depths' states, of two blocks' updates. `stable_rank`:
    |U|_F^2 / |U|_2^2 of the updates of all tokens. `coherence`: mean cosine of two tokens' updates. `kinds`: a label
    for each block; blocks of one label could share weights. NaN where a block changes nothing.
    """

    convergence: Float[np.ndarray, "depth token"]
    convergence_control: Float[np.ndarray, "depth token"]
    speed: Float[np.ndarray, "block token"]
    speed_control: Float[np.ndarray, "block token"]
    similarity_state: Float[np.ndarray, "depth depth"]
    similarity_state_control: Float[np.ndarray, "depth depth"]
    similarity_update: Float[np.ndarray, "block block"]
    similarity_update_control: Float[np.ndarray, "block block"]
    stable_rank: Float[np.ndarray, " block"]
    stable_rank_control: Float[np.ndarray, " block"]
    coherence: Float[np.ndarray, " block"]
    coherence_control: Float[np.ndarray, " block"]
    kinds: tuple[int, ...]
    n_tokens: int

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        asked = self.provenance.settings["rows"] * (self.provenance.settings["context"] - 1)
        return "" if self.n_tokens == asked else f"cut short after {self.n_tokens} of {asked} tokens"

    def similarity(self, of: Of = "state") -> Float[np.ndarray, "block block"]:
        """Similarities of the blocks: of the states they leave, or of the updates they make."""
        return self.similarity_state[1:, 1:] if of == "state" else self.similarity_update

    def phases(self, k: int, of: Of = "state") -> Phases:
        """The best division into `k` contiguous phases; raises ValueError as `strobe.probes.depth.phases.phases`."""
        return phases(self.similarity(of), k)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Directional convergence and angular speed through depth, beside those of another token."""
        from strobe.probes.depth import figures

        return figures.motion(self, template)

    def update_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Stable rank and token coherence of the updates by block, beside random directions."""
        from strobe.probes.depth import figures

        return figures.updates(self, template)

    def similarity_figure(
        self, of: Of = "state", k: int | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Blocks by blocks, coloured by similarity, with the bounds of `k` phases (None: no bounds)."""
        from strobe.probes.depth import figures

        return figures.similarities(self, of, k, template)

    def phase_figure(self, of: Of = "state", *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """What k phases explain, against k, beside blocks in random order."""
        from strobe.probes.depth import figures

        return figures.explained(self, of, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per depth: means over tokens; what belongs to block l - 1 stands at depth l."""
        import pandas

        def per_block(values: np.ndarray) -> np.ndarray:
            return np.concatenate([[np.nan], values])

        columns = {"depth": np.arange(len(self.convergence))}
        for name in ("convergence", "convergence_control"):
            columns[name] = _mean(getattr(self, name))
        for name in ("speed", "speed_control"):
            columns[name] = per_block(_mean(getattr(self, name)))
        for name in ("stable_rank", "stable_rank_control", "coherence", "coherence_control"):
            columns[name] = per_block(getattr(self, name))
        return pandas.DataFrame(columns)

    def summary(self) -> str:
        """Convergence and speed at a few depths beside their controls, updates, the best two phases."""
        n = len(self.kinds)
        lines = [f"Depth as time: {n} blocks, {self.n_tokens} tokens; means over tokens"]
        lines += [f"  {self.partial}"] if self.partial else []
        convergence, other = _mean(self.convergence), _mean(self.convergence_control)
        speed, speed_other = _mean(self.speed), _mean(self.speed_control)
        lines += [
            f"  block {i}: cosine to the last state {convergence[i + 1]:.3f} (another token's {other[i + 1]:.3f}); "
            f"turn {speed[i]:.1f}° ({speed_other[i]:.1f}°); stable rank {self.stable_rank[i]:.1f} (random "
            f"{self.stable_rank_control[i]:.1f}); coherence {self.coherence[i]:.3f} (random "
            f"{self.coherence_control[i]:.3f})"
            for i in range(n)
        ]
        for of in ("state", "update"):
            if n > 2 and np.isfinite(self.similarity(of)).all():
                best, chance = self.phases(2, of), shuffled_shares(self.similarity(of), 2)
                lines.append(
                    f"  two phases by {of}: blocks {best.starts[1]} and on; they explain {best.share:.0%} (blocks in "
                    f"random order {np.nanmean(chance):.0%})"
                )
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over the tokens where it is known, of each row; NaN where none is."""
    known = np.isfinite(values)
    count = known.sum(1)
    return np.where(count > 0, np.where(known, values, 0).sum(1) / np.maximum(count, 1), np.nan)
