"""`fixed_points_over_training`: how many fixed points of which kind a network has as it learns, and where."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.probes.fixed_points.finder import Limits
from strobe.probes.fixed_points.probe import fixed_points
from strobe.probes.fixed_points.result import FixedPoints
from strobe.probes.partial import keeping

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class FixedPointsOverTraining(Result):
    """The fixed points after each of `steps` [k] training steps, `found` [k].

    The first is the control: the network before it learned anything, where it is step 0. Of a search that was cut
    short, those that were reached.
    """

    steps: Int[np.ndarray, " k"]
    found: list[FixedPoints]

    @property
    def partial(self) -> str:
        """How many of the checkpoints were reached, in words; empty where all were."""
        asked = len(self.provenance.settings.get("steps", self.steps))
        return "" if len(self.steps) == asked else f"cut short after {len(self.steps)} of {asked} checkpoints"

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """An animation of the portraits, along the main axes of the last step's points."""
        from strobe.probes.fixed_points import training_figures

        return training_figures.animation(self, template)

    def counts_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """How many points there are of each saddle index, against the step."""
        from strobe.probes.fixed_points import training_figures

        return training_figures.counts(self, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per step and kind of point."""
        import pandas as pd

        rows = [
            {"step": int(step), "kind": kind, "points": n, "index_sum": one.index_sum, "slow": len(one.slow_points)}
            for step, one in zip(self.steps, self.found, strict=True)
            for kind, n in one.kind_counts().items()
        ]
        return pd.DataFrame(rows, columns=["step", "kind", "points", "index_sum", "slow"])

    def summary(self) -> str:
        """Points by kind at each step, and the provenance."""
        lines = [f"fixed points of {self.provenance.model} while it learned"]
        for step, one in zip(self.steps, self.found, strict=True):
            said = ", ".join(f"{n} {kind}" for kind, n in one.kind_counts().items()) or "none"
            lines.append(f"  step {step}: {said}; {len(one.slow_points)} slow points")
        lines += [f"  {self.partial}"] if self.partial else []
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def fixed_points_over_training(
    checkpoints: Sequence[tuple[int, Any]],
    *,
    held: Any = None,
    layer: int | None = None,
    n_initial: int = 256,
    rounds: int = 3,
    limits: Limits | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    partial: Callable[[FixedPointsOverTraining], None] | None = None,
) -> FixedPointsOverTraining:
    """`fixed_points` of each checkpoint: (training steps made, a `System`, module or model), in that order.

    Where `progress` raises, `partial` is given the result over the checkpoints that were reached, if any. Raises
    ValueError for fewer than two checkpoints, or steps that do not increase.
    """
    steps = [step for step, _ in checkpoints]
    if len(steps) < 2 or any(b <= a for a, b in pairwise(steps)):
        raise ValueError(f"checkpoints after {steps} steps were given; give two or more, in the order of training")
    found: list[FixedPoints] = []

    def result() -> FixedPointsOverTraining:
        last = found[-1]
        return FixedPointsOverTraining(
            steps=np.array(steps[: len(found)], dtype=np.int64),
            found=list(found),
            provenance=Provenance(
                model=last.provenance.model,
                weights_hash=last.provenance.weights_hash,
                seed=seed,
                settings={"held": last.held, "initial": n_initial, "rounds": rounds, "steps": steps},
                control=f"the same network after {steps[0]} steps",
            ),
        )

    tick = keeping(progress, partial, lambda: result() if found else None)
    for i, (step, source) in enumerate(checkpoints):
        tick(i, len(steps), f"fixed points after {step} steps")
        options: dict[str, Any] = {"held": held, "layer": layer, "limits": limits, "seed": seed}
        found.append(fixed_points(source, n_initial=n_initial, rounds=rounds, control=None, **options))
    tick(len(steps), len(steps), "done")
    return result()
