"""`cycles`: carries a recurrence comes back to after k steps, with their multipliers, beside those of a shuffled one.

A k-cycle is a fixed point of F applied k times that is none of F applied fewer times. Its multipliers, the eigenvalues
of the product of the Jacobians around it, are the same at each of its points.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Complex128, Float64, Int
from torch import Tensor, nn

from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.probes.fixed_points import classify, probe
from strobe.probes.fixed_points.candidates import random_carries
from strobe.probes.fixed_points.finder import Limits
from strobe.probes.fixed_points.search import polish, search
from strobe.probes.fixed_points.spectra import eigenvalues, pad
from strobe.probes.fixed_points.system import System, as_carries, iterated
from strobe.probes.partial import keeping

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# Carries of a cycle closer than this, relative to 1 + their largest entry, are one.
_SAME = 1e-6


@dataclass(frozen=True)
class KCycles(Result):
    """Cycles of a recurrence under a held input.

    `searched` [l]: the lengths that were looked for. `periods` [cycle]. `points` [point, size]: the carries of all
    cycles, one cycle after the other and each in the order in which the map comes to them; `of` [point]: whose they
    are. `multipliers` [cycle, leading]: eigenvalues of the Jacobian once around, largest magnitude first. `speeds`
    [cycle]: how far once around moves its worst point. `hits` [cycle]: how many initial carries ended on it.
    `escaped`, `failed` [l]: how many left the finite numbers, or came to nothing. `control`: the same search with the
    recurrent weights shuffled. Of a run that was cut short, the lengths that both searches had finished.
    """

    version: ClassVar[int] = 1

    system: str
    held: str
    searched: list[int]
    periods: Int[np.ndarray, " cycle"]
    points: Float64[np.ndarray, "point size"]
    of: Int[np.ndarray, " point"]
    multipliers: Complex128[np.ndarray, "cycle leading"]
    speeds: Float64[np.ndarray, " cycle"]
    hits: Int[np.ndarray, " cycle"]
    escaped: Int[np.ndarray, " searched"]
    failed: Int[np.ndarray, " searched"]
    control: "KCycles | None" = None

    @property
    def partial(self) -> str:
        """How many of the lengths were searched, in words; empty where all were."""
        asked = len(self.provenance.settings.get("lengths", self.searched))
        return "" if len(self.searched) == asked else f"cut short after {len(self.searched)} of {asked} lengths"

    @property
    def kinds(self) -> list[str]:
        """What each cycle is, as a fixed point of the map once around (`classify.kinds`)."""
        return classify.kinds(self.multipliers, self.points.shape[1])

    @property
    def timescales(self) -> Float64[np.ndarray, "cycle leading"]:
        """-period / ln |multiplier| in steps."""
        return self.periods[:, None] * classify.timescales(self.multipliers)

    def counts(self) -> dict[int, int]:
        """How many cycles there are of each length searched."""
        return {k: int((self.periods == k).sum()) for k in self.searched}

    def figure(self, *, dimensions: int = 2, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Each cycle as a closed line through its points, along the points' main axes."""
        from strobe.probes.fixed_points import orbit_figures

        return orbit_figures.cycles(self, dimensions, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per cycle: its length, kind, leading multiplier, timescale, speed and hits."""
        import pandas as pd

        leading = classify.leading_eigenvalue(self.multipliers)
        return pd.DataFrame(
            {
                "cycle": np.arange(len(self.periods)),
                "period": self.periods,
                "kind": np.array(self.kinds, dtype=object),
                "multiplier_abs": np.abs(leading),
                "multiplier_angle": np.angle(leading),
                "tau": self.periods * classify.timescales(leading),
                "speed": self.speeds,
                "hits": self.hits,
            }
        )

    def summary(self) -> str:
        """Cycles by length and kind, what escaped or failed, the control, and the provenance."""
        said = ", ".join(f"{n} of length {k}" for k, n in self.counts().items())
        lines = [f"cycles of {self.system}, {self.held}: {said}"]
        stable = sum(kind.startswith("stable") for kind in self.kinds)
        lines.append(f"  {stable} of {len(self.periods)} attract")
        if self.escaped.sum() or self.failed.sum():
            lines.append(f"  searches that escaped {int(self.escaped.sum())}, that failed {int(self.failed.sum())}")
        if self.control is not None:
            other = ", ".join(f"{n} of length {k}" for k, n in self.control.counts().items())
            lines.append(f"  control: {other} ({self.provenance.control})")
        lines += [f"  {self.partial}"] if self.partial else []
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


@torch.no_grad()
def cycles(
    source: System | nn.Module,
    lengths: Sequence[int] = (1, 2, 3, 4),
    initial: Any = None,
    *,
    held: Any = None,
    layer: int | None = None,
    n_initial: int = 512,
    rounds: int = 1,
    control: Literal["shuffled"] | None = "shuffled",
    limits: Limits | None = None,
    seed: int = 0,
    progress: probe.Tick | None = None,
    partial: Callable[[KCycles], None] | None = None,
) -> KCycles:
    """The cycles of `source` (as for `fixed_points`) of each of `lengths`; length 1 is its fixed points.

    `initial` [n, size]: carries to search from; `n_initial` random ones if None. A cycle of length k is looked for as a
    root of F^k(x) - x, whose number grows fast with k: `hits` says how surely each was found, nothing says that all
    were. Where `progress` raises, `partial` is given the lengths that both searches had finished, if any. Raises
    ValueError for a length below 1, and as `fixed_points` does.
    """
    system, limits, wanted = probe.system_of(source, held, layer), limits or Limits(), sorted(set(lengths))
    if not wanted or wanted[0] < 1:
        raise ValueError(f"cycles of lengths {list(lengths)} were asked for; give lengths of 1 or more")
    other = system.shuffled(seed) if control == "shuffled" and system.shuffled is not None else None
    both = []
    for one in (x for x in (other, system) if x is not None):
        start = random_carries(one, n_initial, seed) if initial is None else as_carries(initial, one.size, "carries")
        provenance = Provenance(
            model=one.model or one.name,
            weights_hash=one.weights_hash,
            seed=seed,
            settings={"held": one.held, "lengths": wanted, "initial": len(start), "rounds": rounds, "dtype": "float64"},
            control="recurrent weights shuffled within each gate, one draw" if one is system and other else None,
        )
        both.append(_Searching(one, start, limits, rounds, provenance))

    def result(done: int) -> KCycles:
        *before, last = both
        return last.result(done, before[0].result(done, None) if before else None)

    # The system is searched after its control: what it has finished, both have.
    tick = keeping(progress, partial, lambda: result(n) if (n := len(both[-1].searched)) else None)

    for i, k in enumerate(wanted):
        for j, one in enumerate(both):
            tick(i * len(both) + j, len(both) * len(wanted), f"cycles of length {k}")
            one.search(k, seed)
    tick(len(both) * len(wanted), len(both) * len(wanted), "done")
    return result(len(wanted))


class _Searching:
    """What the search of one system has found, length by length."""

    def __init__(self, system: System, start: Tensor, limits: Limits, rounds: int, provenance: Provenance) -> None:
        self.system, self.start, self.limits, self.rounds, self.provenance = system, start, limits, rounds, provenance
        self.searched: list[int] = []
        self.rows: list[Tensor] = []
        self.spectra: list[Tensor] = []
        self.hits: list[int] = []
        self.speeds: list[float] = []
        self.escaped: list[int] = []
        self.failed: list[int] = []

    def search(self, k: int, seed: int) -> None:
        """Add the cycles of length `k`."""
        around = iterated(self.system, k)
        found = search(around, self.start, self.limits, slow_below=0.0, rounds=self.rounds, most=256, seed=seed)
        for cycle, count in _grouped(self.system, around, found.points, found.hits, k, self.limits):
            self.rows.append(cycle)
            self.hits.append(count)
            self.spectra.append(eigenvalues(around, cycle[:1], self.limits.dense_up_to)[0])
            self.speeds.append(float(around.speed(cycle).max()))
        self.escaped.append(found.ends["escaped"])
        self.failed.append(found.ends["failed"])
        self.searched.append(k)

    def result(self, done: int, control: KCycles | None) -> KCycles:
        """Of the first `done` lengths that were searched."""
        size, searched = self.system.size, self.searched[:done]
        # Cycles are in the order of their lengths.
        rows = [row for row in self.rows if len(row) in searched]
        n = len(rows)
        periods = np.array([len(row) for row in rows], dtype=np.int64)
        none = torch.zeros(0, size, dtype=torch.complex128)
        return KCycles(
            system=self.system.name,
            held=self.system.held,
            searched=searched,
            periods=periods,
            points=(torch.cat(rows) if rows else torch.zeros(0, size, dtype=torch.float64)).numpy(),
            of=np.repeat(np.arange(len(rows)), periods),
            multipliers=(pad(self.spectra[:n]) if rows else none).numpy(),
            speeds=np.array(self.speeds[:n]),
            hits=np.array(self.hits[:n], dtype=np.int64),
            escaped=np.array(self.escaped[:done]),
            failed=np.array(self.failed[:done]),
            control=control,
            provenance=self.provenance,
        )


def _grouped(
    system: System, around: System, points: Tensor, hits: list[int], k: int, limits: Limits
) -> list[tuple[Tensor, int]]:
    """(the carries of a cycle in order [k, size], its hits) for each cycle of length exactly `k` among `points`."""
    groups: list[tuple[Tensor, int]] = []
    taken = torch.zeros(len(points), dtype=torch.bool)
    for i in range(len(points)):
        if bool(taken[i]):
            continue
        row = [points[i]]
        for _ in range(k - 1):
            after = system.step(row[-1][None])
            # Each step may magnify what is left of the error; a point of F^k's own takes it back.
            row.append((polish(around, after) if system.size <= limits.dense_up_to else after)[0])
        orbit = torch.stack(row)
        near = _SAME * (1 + orbit.abs().max())
        mine = torch.cdist(points, orbit).amin(1) <= near
        taken |= mine
        returns = (orbit[1:] - orbit[0]).norm(dim=-1)
        if k == 1 or bool((returns > near).all()):
            groups.append((orbit, sum(count for count, one in zip(hits, mine.tolist(), strict=True) if one)))
    return groups
