"""`CarryDiagnostics`: the carry along a long input, by layer, head and channel, and what the numbers say."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float, Int64

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

Layers = list[np.ndarray | None]

# Ours: the paper looks at the curve. Below, a head's variance stays in what training showed.
_EXPLODED = 3.0


@dataclass(frozen=True)
class CarryDiagnostics(Result):
    """Lists have an entry a layer of `layers`. Positions are 0-based tokens after which the carry was looked at.

    `head_*` [positions, heads], `channel_*` [positions, channels]: mean, variance and largest magnitude over the batch
    and the entries of a unit, and its Euclidean norm (mean over the batch). `rank` [positions, heads]: effective rank
    of a matrix memory. `saturation` [positions, heads]: rank over the largest possible one, or the share of units of a
    bounded cell beyond 0.9. `log_retention` [positions, heads]: ln alpha_{1:t}, the share of the first token's write
    that is left (mean over a head's units and the batch). `mean_log_decay` [heads, units]: a token's. `outside` and
    `distance` [positions beyond training]: share of units outside the range seen within `train_length`, and the root
    mean square z-score there; `control_outside`, `control_distance`: of held-out rows inside it. `window_loss` (nats)
    and `window_accuracy` [windows] over `stride` tokens each; NaN where nothing was scored. `control_norm`,
    `control_log_retention`: the same tokens shuffled, at `control_positions`. None where a layer has no such number.
    """

    KEPT: ClassVar = (
        "head_mean", "head_variance", "head_largest", "head_norm", "channel_mean", "channel_variance",
        "channel_largest", "channel_norm", "rank", "saturation", "log_retention", "outside", "distance",
    )  # fmt: skip

    layers: tuple[int, ...]
    mixers: tuple[str, ...]
    train_length: int
    stride: int
    time: int
    positions: Int64[np.ndarray, " positions"]
    head_mean: Layers
    head_variance: Layers
    head_largest: Layers
    head_norm: Layers
    channel_mean: Layers
    channel_variance: Layers
    channel_largest: Layers
    channel_norm: Layers
    rank: Layers
    saturation: Layers
    log_retention: Layers
    outside: Layers
    distance: Layers
    mean_log_decay: Layers
    window_loss: Float[np.ndarray, " windows"]
    window_accuracy: Float[np.ndarray, " windows"]
    control_positions: Int64[np.ndarray, " control_positions"]
    control_norm: Layers
    control_log_retention: Layers
    control_outside: Layers
    control_distance: Layers

    @property
    def partial(self) -> str:
        """How many of the tokens were read, in words; empty where all were."""
        asked = self.provenance.settings.get("time", self.time)
        return "" if self.time >= asked else f"cut short after {self.time} of {asked} tokens"

    def explosion_ratio(self) -> list[Float[np.ndarray, " heads"]]:
        """Variance at the last position over the largest within the training length, by head (Chen et al. 2024, who
        draw the curve; the ratio is ours). NaN where no position lies within training or its variance is 0."""
        inside = self.positions < self.train_length
        ratios = []
        for variance in self.head_variance:
            assert variance is not None
            within = variance[inside].max(0) if inside.any() else np.zeros(variance.shape[1])
            ratios.append(np.divide(variance[-1], within, out=np.full(len(within), np.nan), where=within > 0))
        return ratios

    def exploded(self) -> dict[int, list[int]]:
        """Heads by layer whose explosion ratio is above 3 (ours: the paper names no threshold)."""
        found = zip(self.layers, self.explosion_ratio(), strict=True)
        return {i: np.flatnonzero(r > _EXPLODED).tolist() for i, r in found if (r > _EXPLODED).any()}

    def half_life(self) -> Layers:
        """Tokens until half of a write is left, ln 0.5 / mean ln alpha, of every unit [heads, units]; inf for a unit
        that never forgets, None for a layer nonlinear in its carry."""
        with np.errstate(divide="ignore"):
            return [None if x is None else np.log(2) / np.where(x > 0, np.nan, -x + 0.0) for x in self.mean_log_decay]

    def retention_per(self, tokens: int) -> Layers:
        """exp(`tokens` times mean ln alpha), averaged within a head in the logarithm, [heads]; None as `half_life`."""
        return [None if x is None else np.exp(tokens * x.mean(1)) for x in self.mean_log_decay]

    @property
    def forgetting_ratio(self) -> float:
        """Largest window loss beyond the training length over the largest within it; NaN without loss on either side.

        Chen et al. 2024 call a model unable to forget where it passes 2. Windows are of `stride` tokens: short ones
        and a small batch make it noisy.
        """
        ends = np.minimum((np.arange(len(self.window_loss)) + 1) * self.stride, self.time)
        inside, beyond = (self.window_loss[x] for x in (ends <= self.train_length, ends > self.train_length))
        inside, beyond = inside[np.isfinite(inside)], beyond[np.isfinite(beyond)]
        return float(beyond.max() / inside.max()) if inside.size and beyond.size and inside.max() > 0 else float("nan")

    def figure(
        self, what: str = "norm", layer: int | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """ "norm", "variance", "mean", "largest", "rank", "saturation" or "retention" by head of one layer (None: the
        first) along the input, log axes, training length marked. Raises ValueError for another name or a layer without
        that number."""
        from strobe.probes.memory import diagnostics_figures

        return diagnostics_figures.over_time(self, what, layer, template)

    def channel_figure(
        self, layer: int | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Outlier channels: histogram of channel norms at the end of training and at the end of the input."""
        from strobe.probes.memory import diagnostics_figures

        return diagnostics_figures.outliers(self, layer, template)

    def range_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Share of units outside the range seen within training, by layer, with held-out rows as control."""
        from strobe.probes.memory import diagnostics_figures

        return diagnostics_figures.beyond_range(self, template)

    def loss_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Loss by position with the training length and the forgetting criterion."""
        from strobe.probes.memory import diagnostics_figures

        return diagnostics_figures.loss(self, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per layer, position and head: moments, rank, saturation, log retention."""
        import pandas

        frames = []
        for i, layer in enumerate(self.layers):
            first = self.head_norm[i]
            assert first is not None
            n, heads = first.shape
            columns = {
                "layer": layer,
                "position": np.repeat(self.positions, heads),
                "head": np.tile(np.arange(heads), n),
            }
            for name in ("mean", "variance", "largest", "norm"):
                columns[name] = getattr(self, f"head_{name}")[i].ravel()
            for name in ("rank", "saturation", "log_retention"):
                values = getattr(self, name)[i]
                columns[name] = np.full(n * heads, np.nan) if values is None else values.ravel()
            frames.append(pandas.DataFrame(columns))
        return pandas.concat(frames, ignore_index=True)

    def summary(self) -> str:
        """Explosion, half-life, range and loss beside their controls, layer by layer."""
        lines = [
            f"carry along {self.time} tokens, {self.time / self.train_length:.3g} times the training length of "
            f"{self.train_length}, every {self.stride}"
        ]
        lines += [f"  {self.partial}"] if self.partial else []
        lives = self.half_life()
        for i, layer in enumerate(self.layers):
            norm, ratio = self.head_norm[i], self.explosion_ratio()[i]
            assert norm is not None
            parts = [f"norm {norm[0].mean():.3g} to {norm[-1].mean():.3g}"]
            parts.append(f"explosion ratio up to {np.nanmax(ratio):.3g}" if np.isfinite(ratio).any() else "no ratio")
            life, outside = lives[i], self.outside[i]
            if life is not None:
                parts.append(f"half-life {np.nanmin(life):.3g} to {np.nanmax(life):.3g} tokens")
            inside = self.control_outside[i]
            if outside is not None and len(outside) and inside is not None:
                parts.append(f"{outside[-1]:.1%} of units outside the training range (held out: {inside.mean():.1%})")
            lines.append(f"  layer {layer} ({self.mixers[i]}): {', '.join(parts)}")
        if np.isfinite(self.forgetting_ratio):
            lines.append(
                f"  largest loss beyond / within training: {self.forgetting_ratio:.3g} (cannot forget above 2)"
            )
        lines.append("  none of this is collapse without a behavioural curve and an intervention")
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
