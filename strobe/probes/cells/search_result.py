"""What a search for cells found: each label's best units on files they were not chosen on, beside what chance finds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from strobe.core.result import Result
from strobe.probes.cells.units import Site

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

VARIANTS = ("as trained", "labels of another file", "weights permuted")
"""The search, and the two controls."""


@dataclass(frozen=True)
class CellSearch(Result):
    """Units that follow labels (`strobe.probes.cells.labels.LABELS`).

    `graded` [label]: whether a label counts; the others are 0 or 1. `share` [label]: its mean where units were chosen.
    `sites`, `layers`, `fields`, `kinds`, `shapes`: where units are, in the order of their numbers. `correlation`
    [split, label, unit]: Pearson's r where units were chosen and on other files; NaN for a unit that never moves or a
    label that never holds. `best` [variant, label, top]: unit numbers, the largest |r| where chosen first; -1 where a
    cancelled run did not come. `chosen`, `held_out` [variant, label, top]: their r. `auroc`: on other files, with
    the sign of `chosen`; NaN for labels that count. `n_files`: to choose on, to judge by, left out. `length`: tokens.
    """

    labels: list[str]
    graded: Bool[np.ndarray, " label"]
    share: Float[np.ndarray, " label"]
    sites: list[str]
    layers: list[int]
    fields: list[str]
    kinds: list[str]
    shapes: list[list[int]]
    correlation: Float[np.ndarray, "split label unit"]
    variants: list[str]
    best: Int[np.ndarray, "variant label top"]
    chosen: Float[np.ndarray, "variant label top"]
    held_out: Float[np.ndarray, "variant label top"]
    auroc: Float[np.ndarray, "variant label top"]
    n_files: list[int]
    length: int

    @property
    def n_units(self) -> int:
        """How many units were tried on each label."""
        return self.correlation.shape[-1]

    @property
    def n_constant(self) -> int:
        """How many units never moved where units were chosen, so that they have no correlation."""
        varied = [i for i in range(len(self.labels)) if np.isfinite(self.correlation[0, i]).any()]
        return int(np.isnan(self.correlation[0, varied]).all(0).sum()) if varied else self.n_units

    def place(self, unit: int) -> tuple[int, str, int]:
        """(layer, field, number within the field) of a unit. Raises ValueError for a number that no unit has."""
        start = 0
        for layer, field, shape in zip(self.layers, self.fields, self.shapes, strict=True):
            size = int(np.prod(shape))
            if start <= unit < start + size:
                return layer, field, unit - start
            start += size
        raise ValueError(f"unit {unit} was asked for; there are 0 to {start - 1}; give one of these")

    def unit_name(self, unit: int) -> str:
        """A unit with its block, field and place in the array."""
        layer, field, index = self.place(unit)
        site = next(i for i, at in enumerate(zip(self.layers, self.fields, strict=True)) if at == (layer, field))
        return Site(self.sites[site], layer, field, self.kinds[site], tuple(self.shapes[site])).name(index)

    def label_index(self, label: str) -> int:
        """The number of a label. Raises ValueError for one that was not searched."""
        if label not in self.labels:
            raise ValueError(f"label {label!r} was asked for; this search has {', '.join(self.labels)}")
        return self.labels.index(label)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """|r| on other files of each label's best unit, with both controls."""
        from strobe.probes.cells import search_figures

        return search_figures.best_units(self, template)

    def label_figure(self, label: str, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Every unit's r where chosen against its r on other files. Raises ValueError for an unknown label."""
        from strobe.probes.cells import search_figures

        return search_figures.all_units(self, label, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per variant, label and kept unit: their names, rank, unit number, r where chosen, r and AUROC on
        other files."""
        import pandas

        rows = [
            (
                variant, label, k, int(self.best[v, i, k]), self.unit_name(int(self.best[v, i, k])),
                self.chosen[v, i, k], self.held_out[v, i, k], self.auroc[v, i, k],
            )
            for v, variant in enumerate(self.variants)
            for i, label in enumerate(self.labels)
            for k in range(self.best.shape[-1])
            if self.best[v, i, k] >= 0
        ]  # fmt: skip
        columns = ["variant", "label", "rank", "unit", "name", "r_chosen", "r_held_out", "auroc_held_out"]
        return pandas.DataFrame(rows, columns=columns)

    def summary(self) -> str:
        """Each label's best unit, on files it was not chosen on, beside the controls'."""
        kind = "numbers of the carry" if "carry" in self.kinds else "channels of the residual stream (no recurrence)"
        lines = [
            f"{self.n_units:,} units tried on each label ({kind}; {self.n_constant:,} never moved); chosen on "
            f"{self.n_files[0]} files and judged on {self.n_files[1]} others, {self.length} tokens each "
            f"({self.n_files[2]} left out: too short, or not for tokenize)"
        ]
        for i, label in enumerate(self.labels):
            if self.best[0, i, 0] < 0 or np.isnan(self.chosen[0, i, 0]):
                lines.append(f"  {label}: does not vary in these files")
                continue
            area = "" if np.isnan(self.auroc[0, i, 0]) else f", AUROC {self.auroc[0, i, 0]:.3f}"
            others = ", ".join(f"{self.variants[v]} {self.held_out[v, i, 0]:+.2f}" for v in (1, 2))
            name = self.unit_name(int(self.best[0, i, 0]))
            lines.append(f"  {label}: {name} r {self.held_out[0, i, 0]:+.3f}{area} (control: {others})")
        return "\n".join(lines)
