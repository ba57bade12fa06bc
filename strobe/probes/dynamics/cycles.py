"""`Cycles`: fixed points and cycles of a piecewise-linear map, with their stability and how often each was found."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from strobe.core import figures
from strobe.core.result import Result
from strobe.core.tokens import escape_plotly
from strobe.probes.fixed_points import classify

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class Cycles(Result):
    """What `piecewise_linear_cycles` came to.

    `orbits`: one [order, M] array a cycle, order 1 a fixed point. `multipliers`: for each the eigenvalues [M] of the
    Jacobian once around, inside the unit circle where it attracts. `hits` [n]: how many guesses ended there. `solves`:
    linear solves made; `singular` of them had no single answer and were dropped. `exhausted`: orders whose budget ended
    while new cycles still came. `control`: the same search of the map with W1 permuted.
    """

    map: str
    max_order: int
    orbits: list[np.ndarray]
    multipliers: list[np.ndarray]
    hits: Int[np.ndarray, " n"]
    solves: int
    singular: int
    exhausted: list[int]
    control: "Cycles | None" = None

    @property
    def orders(self) -> Int[np.ndarray, " n"]:
        """Steps around each cycle."""
        return np.array([len(o) for o in self.orbits], dtype=np.int64)

    @property
    def stable(self) -> np.ndarray:
        """Whether each attracts: every multiplier inside the unit circle, [n] booleans."""
        return np.array([bool((np.abs(m) < 1 - classify.MARGINAL).all()) for m in self.multipliers], dtype=bool)

    def counts(self) -> dict[int, int]:
        """How many cycles there are of each order that has any."""
        return dict(sorted(Counter(self.orders.tolist()).items()))

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The cycles in the plane of the first two latent dimensions; stable ones filled, unstable ones open."""
        import plotly.graph_objects as go

        fig, colours = go.Figure(), figures.colors(template)
        for i, orbit in enumerate(self.orbits):
            path = np.concatenate([orbit, orbit[:1]])
            second = path[:, 1] if path.shape[1] > 1 else np.zeros(len(path))
            which = "stable" if self.stable[i] else "unstable"
            name = f"{which} {'fixed point' if len(orbit) == 1 else f'{len(orbit)}-cycle'}"
            fig.add_scatter(
                x=path[:, 0],
                y=second,
                mode="markers" if len(orbit) == 1 else "lines+markers",
                line={"width": 1, "dash": figures.DASHES[(len(orbit) - 1) % len(figures.DASHES)]},
                marker={
                    "size": 9,
                    "color": colours[(len(orbit) - 1) % len(colours)],
                    "symbol": figures.SYMBOLS[(len(orbit) - 1) % 6] + ("" if self.stable[i] else "-open"),
                },
                name=name,
                hovertemplate=f"{name}, largest |multiplier| {np.abs(self.multipliers[i]).max():.4g}<extra></extra>",
            )
        note = f"orders 1 to {self.max_order}, found exactly; {sum(self.hits)} hits in {self.solves} solves"
        if self.control is not None:
            note += f"; control (W1 permuted): {len(self.control.orbits)} found"
        fig.update_layout(
            title={"text": f"Fixed points and cycles of the {escape_plotly(self.map)}", "subtitle": {"text": note}},
            margin={"t": 84},
            height=520,
            legend={"y": -0.18, "yanchor": "top", "x": 0, "xanchor": "left"},
        )
        fig.update_xaxes(title_text="z_1")
        fig.update_yaxes(title_text="z_2" if self.orbits and self.orbits[0].shape[1] > 1 else "")
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row a cycle: order, stability, largest multiplier, hits, and its first point."""
        import pandas as pd

        size = self.orbits[0].shape[1] if self.orbits else 0
        return pd.DataFrame(
            {
                "order": self.orders,
                "stable": self.stable,
                "largest_multiplier": [float(np.abs(m).max()) for m in self.multipliers],
                "hits": self.hits,
                **{f"z{i + 1}": [float(o[0, i]) for o in self.orbits] for i in range(size)},
            }
        )

    def summary(self) -> str:
        """Cycles by order, what was dropped, what speaks against completeness, the control, the provenance."""
        counts = ", ".join(f"{n} of order {k}" for k, n in self.counts().items()) or "none"
        stable = int(self.stable.sum())
        alone = int((self.hits == 1).sum())
        lines = [
            f"{len(self.orbits)} fixed points and cycles of the {self.map}, orders 1 to {self.max_order}: {counts}",
            f"  {stable} of them stable; {self.solves} linear solves, {self.singular} without a single answer",
            f"  {alone} were come to once only: not proven complete",
        ]
        if self.exhausted:
            lines.append(f"  orders {self.exhausted} used up their budget while new ones came: a partial result")
        if self.control is not None:
            lines.append(f"  control: {len(self.control.orbits)} found ({self.provenance.control})")
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
