"""What a family of models answers: where each size begins to forget, how far it recalls, and a law for each."""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int64

from strobe.core.result import Result
from strobe.probes.memory.laws import MemoryLaw, fit_law

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

LEARNED, HELD = 0.9, 0.95
What = Literal["forget", "recall"]


@cache
def _law(family: "MemoryFamily", what: What, seed: int) -> MemoryLaw:
    """Kept: a page asks for it in every sentence, and its intervals are hundreds of fits."""
    lengths = family.lengths(what)
    known = np.isfinite(lengths)
    sizes = np.broadcast_to(family.sizes[:, None], lengths.shape)[known]
    kind = "linear" if what == "forget" else "exponential"
    return fit_law(kind, sizes.tolist(), lengths[known].tolist(), seed=seed)


@dataclass(frozen=True)
class MemoryFamily(Result):
    """Models by the size of their state, their training length and their seed.

    `sizes`: numbers in the state. `windows`: training lengths in tokens. `segment`: tokens. `longest`: the longest
    prompt that recall was asked of. `inside`: accuracy on windows as in training; `octaves`: of segment 1 and segments
    2, 3-4, 5-8, ... of one long input. `untouched`, `reset`: accuracy over the second half of the causal test's
    segments, without and with the memory emptied at each boundary. `retention`: the share of a write that is left a
    segment later, by head. `recalled`: T_recall in tokens, 0 where the shortest prompt was not recalled.
    `untrained_...`: the same of each size untrained, the control. `seconds`: of training, all together.
    """

    sizes: Int64[np.ndarray, " sizes"]
    windows: Int64[np.ndarray, " windows"]
    seeds: tuple[int, ...]
    segment: int
    longest: int
    inside: Float[np.ndarray, "sizes windows seeds"]
    octaves: Float[np.ndarray, "sizes windows seeds octaves"]
    untouched: Float[np.ndarray, "sizes windows seeds"]
    reset: Float[np.ndarray, "sizes windows seeds"]
    retention: Float[np.ndarray, "sizes windows seeds heads"]
    recalled: Float[np.ndarray, "sizes windows seeds"]
    untrained_octaves: Float[np.ndarray, "sizes octaves"]
    untrained_retention: Float[np.ndarray, "sizes heads"]
    untrained_recalled: Float[np.ndarray, " sizes"]
    seconds: float

    @property
    def learned(self) -> np.ndarray:
        """[sizes, windows, seeds]: whether the task is solved at the training length, accuracy .9 or more there."""
        return self.inside >= LEARNED

    @property
    def holds(self) -> np.ndarray:
        """[sizes, windows, seeds]: whether the model forgets as it has to: accuracy over the last octave of segments at
        least .95 of that at its training length. Only of one that `learned`."""
        return self.learned & (self.octaves[..., -1] >= HELD * self.inside)

    @property
    def collapsed(self) -> np.ndarray:
        """[sizes, windows, seeds]: learned, does not hold, and emptying the memory at each boundary brings back at
        least .95 of the accuracy of the training length."""
        return self.learned & ~self.holds & (self.reset >= HELD * self.inside)

    @property
    def forget_lengths(self) -> np.ndarray:
        """T_forget [sizes, seeds] in tokens: the shortest training length from which on, at every longer one too, the
        model holds. NaN where the longest does not, or where one of the lengths was not learned."""
        found = np.full((len(self.sizes), len(self.seeds)), np.nan)
        for i, s in np.ndindex(*found.shape):
            from_here = np.logical_and.accumulate(self.holds[i, ::-1, s])[::-1]
            if from_here.any() and self.learned[i, :, s].all():
                found[i, s] = self.windows[from_here.argmax()]
        return found

    @property
    def recall_lengths(self) -> np.ndarray:
        """T_recall [sizes, seeds] in tokens: the longest over training lengths that were learned; NaN for none.
        `longest` means that or more."""
        best = np.where(self.learned, self.recalled, -1.0).max(1)
        return np.where(best > 0, best, np.nan)

    def law(self, what: What, *, seed: int = 0) -> MemoryLaw:
        """The paper's kind of law, T_forget linear and T_recall exponential in the size, fitted to every size and seed.

        Raises ValueError, with the reason, where too few sizes have a length.
        """
        return _law(self, what, seed)

    def said(self, what: What) -> str:
        """In words, what the law comes to; where there is none, that."""
        try:
            found = self.law(what).verdict
        except ValueError as error:
            return f"no law could be fitted: {error}"
        full = int((self.recall_lengths >= self.longest).sum()) if what == "recall" else 0
        return found + (
            f"; {full} of the lengths only reached the longest prompt, {self.longest} tokens" if full else ""
        )

    def lengths(self, what: What) -> np.ndarray:
        """ "forget": `forget_lengths`; "recall": `recall_lengths`. Raises ValueError for another."""
        if what not in ("forget", "recall"):
            raise ValueError(f"lengths of {what!r} were asked for; there are 'forget' and 'recall'")
        return self.forget_lengths if what == "forget" else self.recall_lengths

    def figure(self, what: Literal["forget", "recall", "behaviour"] = "forget", *, template: str = "strobe_light"
               ) -> "plotly.graph_objects.Figure":  # fmt: skip
        """ "forget" or "recall": the lengths and their law beside the published fit; "behaviour": accuracy by segment,
        a panel a size."""
        from strobe.probes.memory import family_figures

        if what == "behaviour":
            return family_figures.behaviour(self, template)
        self.lengths(what)
        return family_figures.law(self, what, template)

    def tables(self) -> list[dict[str, Any]]:
        """As a card has them: ``title``, ``columns``, ``rows`` and a ``note``."""
        from strobe.probes.memory import family_tables

        return family_tables.tables(self)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per model."""
        import pandas

        i, j, s = (a.ravel() for a in np.indices(self.inside.shape))
        return pandas.DataFrame(
            {
                "size": self.sizes[i],
                "training_length": self.windows[j],
                "seed": np.array(self.seeds)[s],
                "inside": self.inside.ravel(),
                "far": self.octaves[..., -1].ravel(),
                "untouched": self.untouched.ravel(),
                "reset": self.reset.ravel(),
                "retention_smallest": self.retention.min(-1).ravel(),
                "retention_largest": self.retention.max(-1).ravel(),
                "t_recall": self.recalled.ravel(),
                "holds": self.holds.ravel(),
                "collapsed": self.collapsed.ravel(),
            }
        )

    def summary(self) -> str:
        """What each law comes to, and the tables' numbers in short."""
        shape = f"{len(self.sizes)} sizes x {len(self.windows)} training lengths x {len(self.seeds)} seeds"
        lines = [
            f"a family of {shape}: {int(self.learned.sum())} learned, {int(self.holds.sum())} hold far "
            f"beyond training, {int(self.collapsed.sum())} collapse (a fall that an emptied memory repairs)",
            f"  T_forget: {self.said('forget')}",
            f"  T_recall: {self.said('recall')}",
            f"  untrained (control): accuracy {self.untrained_octaves.mean():.3f}, recalled "
            f"{self.untrained_recalled.max():.0f} tokens at most",
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
