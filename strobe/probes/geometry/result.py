"""`LayerGeometry`: how much of each block's update is tokenwise, and what the rest does to the output.

Measures of the state are the published ones (Yoo 2026, arXiv:2604.02459); those of the update are ours, and stand
beside them because a block that changes little looks tokenwise whatever it does.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

CONTROLS = ("constant", "identity")
BASELINE = "linear"
RELATIONS = ("own", "random", "permuted", "partial")
# measure -> (its field for the state, for the update, unit)
MEASURES = {
    "cosine": ("cos_state", "cos_update", "cosine"),
    "angle": ("cos_state", "cos_update", "degrees"),
    "error": ("error_state", "error_update", "‖residual‖ / ‖vector‖"),
    "energy": ("energy_state", "energy_update", "share of the square"),
    "energy_residual": ("energy_state_residual", "energy_update_residual", "share of the square"),
    "cosine_residual": ("cos_state_residual", "cos_update_residual", "cosine"),
}


@dataclass(frozen=True)
class LayerGeometry(Result):
    """Axes: layer as in `layers` (of `n_layers` blocks, from 0); map as in `maps`; judged token.

    With x a token's vector before the block, y after it, T the map: `cos_state` of y and T(x), `cos_update` of y - x
    and T(x) - x; `cos_*_residual` of y, y - x and the residual y - T(x); `error_*`: length of the residual over that of
    y, y - x; `energy_*`: share of the square of y, y - x in the subspace that holds 90 % of the squares of all T(x),
    T(x) - x, and `energy_*_residual` that of the residual in the same two. NaN where a vector is zero or rounding.

    `kl`: nats between the model's prediction and that with T(x) in the place of y at this token only; with the residual
    in a random direction; with another token's residual. `rank_correlation`: Spearman's of `error_state` and `kl` (its
    value and 95 % interval), for each of these, and partial, given the length of y. `dimensions`: of the two subspaces.
    `spectrum`: shares of the squares of the predicted updates, by singular direction. `ridge`: the penalty chosen.
    """

    maps: tuple[str, ...]
    layers: tuple[int, ...]
    n_layers: int
    d_model: int
    token_ids: Int[np.ndarray, " token"]
    position: Int[np.ndarray, " token"]
    sequence: Int[np.ndarray, " token"]
    cos_state: Float[np.ndarray, "layer map token"]
    cos_update: Float[np.ndarray, "layer map token"]
    cos_state_residual: Float[np.ndarray, "layer map token"]
    cos_update_residual: Float[np.ndarray, "layer map token"]
    error_state: Float[np.ndarray, "layer map token"]
    error_update: Float[np.ndarray, "layer map token"]
    energy_state: Float[np.ndarray, "layer map token"]
    energy_update: Float[np.ndarray, "layer map token"]
    energy_state_residual: Float[np.ndarray, "layer map token"]
    energy_update_residual: Float[np.ndarray, "layer map token"]
    kl: Float[np.ndarray, "layer kind map token"]
    rank_correlation: Float[np.ndarray, "layer bound relation map"]
    state_norm: Float[np.ndarray, "layer token"]
    update_norm: Float[np.ndarray, "layer token"]
    dimensions: Int[np.ndarray, "layer map space"]
    spectrum: Float[np.ndarray, "layer map direction"]
    ridge: Float[np.ndarray, "layer map"]

    def pair(self, measure: str = "cosine") -> tuple[np.ndarray, np.ndarray]:
        """A measure of the state and of the update, each [layer, map, token]; `measure` is one of `MEASURES`.

        Raises ValueError for another.
        """
        if measure not in MEASURES:
            raise ValueError(f"measure {measure!r} was asked for; there are {', '.join(MEASURES)}")
        state, update = (getattr(self, name) for name in MEASURES[measure][:2])
        return (np.degrees(np.arccos(state)), np.degrees(np.arccos(update))) if measure == "angle" else (state, update)

    def map_index(self, name: str | None = None) -> int:
        """Where map `name` is in `maps`; None is the class with the smallest mean error. Raises ValueError for one that
        was not fitted."""
        if name is None:
            own = [i for i, m in enumerate(self.maps) if m not in (*CONTROLS, BASELINE)] or list(range(len(self.maps)))
            return min(own, key=lambda i: float(mean(self.error_state[:, i].ravel())))
        if name not in self.maps:
            raise ValueError(f"map {name!r} was asked for; this result has {', '.join(self.maps)}")
        return self.maps.index(name)

    @property
    def partial(self) -> str:
        """How many of the blocks were measured, in words; empty where all that were asked for."""
        asked = len(self.provenance.settings.get("layers", self.layers))
        return "" if len(self.layers) == asked else f"cut short after {len(self.layers)} of {asked} blocks"

    def layer_index(self, layer: int) -> int:
        """Where `layer` is in `layers`. Raises ValueError for one that was not looked at."""
        if layer not in self.layers:
            raise ValueError(f"layer {layer} was asked for; this result has {', '.join(map(str, self.layers))}")
        return self.layers.index(layer)

    def figure(self, measure: str = "cosine", *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """A measure by layer and map, of the state (left) and of the update (right): means and quartiles."""
        from strobe.probes.geometry import figures

        return figures.pair(self, measure, template)

    def correlation_figure(
        self, name: str | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Spearman's correlation of error and effect by layer, for one map, beside its three controls."""
        from strobe.probes.geometry import figures

        return figures.correlations(self, name, template)

    def scatter_figure(
        self, layer: int | None = None, name: str | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Error against effect, token by token, at one layer (None: the first) and for one map."""
        from strobe.probes.geometry import figures

        return figures.scatter(self, self.layers[0] if layer is None else layer, name, template)

    def spectrum_figure(
        self, layer: int | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """How many directions the predicted updates use, at one layer (None: the first)."""
        from strobe.probes.geometry import figures

        return figures.spectra(self, self.layers[0] if layer is None else layer, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per layer, map and judged token; angles in degrees, `kl` in nats."""
        import pandas

        layer, which, token = (a.ravel() for a in np.indices(self.cos_state.shape))
        columns = {name: getattr(self, name).ravel() for pair in MEASURES.values() for name in pair[:2]}
        angles = {f"angle_{s}": a.ravel() for s, a in zip(("state", "update"), self.pair("angle"), strict=True)}
        kinds = {n: self.kl[:, i].ravel() for i, n in enumerate(("kl", "kl_random", "kl_permuted"))}
        return pandas.DataFrame(
            {
                "layer": np.array(self.layers)[layer],
                "map": np.array(self.maps, dtype=object)[which],
                "token_id": self.token_ids[token],
                "position": self.position[token],
                "sequence": self.sequence[token],
                **columns,
                **angles,
                **kinds,
                "state_norm": self.state_norm[layer, token],
                "update_norm": self.update_norm[layer, token],
            }
        )

    def summary(self) -> str:
        """For each layer the best class: state beside update, effect and correlation beside their controls."""
        lines = [
            f"Layer-update geometry of {len(self.layers)} of {self.n_layers} blocks, {self.token_ids.size} tokens; "
            "cosines are means over tokens"
        ]
        for i, layer in enumerate(self.layers):
            m = min(
                (j for j, n in enumerate(self.maps) if n not in CONTROLS),
                key=lambda j: float(mean(self.error_state[i, j])),
                default=0,
            )
            (rho, low, high), random = self.rank_correlation[i, :, 0, m], self.rank_correlation[i, 0, 1, m]
            lines.append(
                f"  block {layer}, best map {self.maps[m]}: cosine {mean(self.cos_state[i, m]):.3f} of the state, "
                f"{mean(self.cos_update[i, m]):.3f} of the update; KL {mean(self.kl[i, 0, m]):.3g} nats (random "
                f"direction {mean(self.kl[i, 1, m]):.3g}); error and effect: rho {rho:.2f} [{low:.2f}, {high:.2f}], "
                f"random {random:.2f}, permuted {self.rank_correlation[i, 0, 2, m]:.2f}, given the norm "
                f"{self.rank_correlation[i, 0, 3, m]:.2f}"
            )
        for name in CONTROLS:
            if name in self.maps:
                m = self.maps.index(name)
                lines.append(
                    f"  control, {name}: cosine {mean(self.cos_state[:, m].ravel()):.3f} of the state, "
                    f"{mean(self.cos_update[:, m].ravel()):.3f} of the update"
                )
        lines += [f"  {self.partial}"] if self.partial else []
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def mean(values: np.ndarray) -> float:
    """Mean of the finite `values`; NaN where there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")
