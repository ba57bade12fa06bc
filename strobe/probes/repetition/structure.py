"""Structural repetition of Python code: the same statements, by their grammar rules, over and over.

TR-N (rep-4 over grammar rules) is Dong et al. 2025's; how much of the code stands in tandem repeats is ours.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from strobe.core.provenance import Provenance
from strobe.core.result import Result
from strobe.probes.repetition import metrics
from strobe.probes.repetition.rules import Kind, rules_of
from strobe.probes.repetition.tandem import Run, tandem_repeats

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_N = 4


@dataclass(frozen=True)
class StructuralRepetition(Result):
    """`rules`, `lines`: each statement's rule and first line. `runs` [runs, 3]: start, stop (in statements), period.

    `tr_n`: rep-4 over the rules, NaN for fewer than four. `covered`: share of statements inside a run. `control_*`
    [draws]: the same statements in shuffled order. `stopped`: what ended the reading before the text did, or "".
    """

    rules: list[str]
    lines: Int[np.ndarray, " statements"]
    runs: Int[np.ndarray, "runs 3"]
    tr_n: float
    covered: float
    control_tr_n: Float[np.ndarray, " draws"]
    control_covered: Float[np.ndarray, " draws"]
    stopped: str

    @property
    def longest(self) -> Run | None:
        """The run over the most statements, or None where nothing repeats end to end."""
        runs = [Run(*row) for row in self.runs.tolist()]
        return max(runs, key=lambda r: (r.stop - r.start, -r.start)) if runs else None

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Every run as a bar from its first to its last line, at its period."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig = go.Figure()
        for start, stop, period in self.runs.tolist():
            ends = [int(self.lines[start]), int(self.lines[stop - 1])]
            unit = "<br>".join(_short(rule) for rule in self.rules[start : start + min(period, 6)])
            fig.add_scatter(
                x=ends,
                y=[period, period],
                mode="lines+markers",
                line={"color": figures.colors(template)[0], "width": 4},
                hovertemplate=f"lines %{{x}}, {(stop - start) // period} copies of<br>{unit}<extra></extra>",
                showlegend=False,
            )
        last = int(self.lines[-1]) if len(self.lines) else 1
        fig.update_xaxes(title_text="line", range=[0, last + 1])
        fig.update_yaxes(title_text="period (statements)", rangemode="tozero")
        null = f"{self.control_covered.mean():.2f}" if self.control_covered.size else "none"
        subtitle = f"{self.covered:.2f} of {len(self.rules)} statements are in a run; in shuffled order {null}"
        fig.update_layout(
            title={"text": "Tandem repeats of statements", "subtitle": {"text": subtitle}}, margin={"t": 84}
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per run: first line, last line, period, copies, and the rules of one unit."""
        import pandas

        columns = ["first_line", "last_line", "period", "copies", "unit"]
        rows = [
            (self.lines[a], self.lines[b - 1], p, (b - a) // p, "; ".join(self.rules[a : a + p]))
            for a, b, p in self.runs.tolist()
        ]
        return pandas.DataFrame(rows, columns=columns)

    def summary(self) -> str:
        """The share that repeats beside its control, and the longest run."""
        run = self.longest
        lines = [
            f"{len(self.rules)} statements: {self.covered:.3f} of them in tandem repeats (shuffled "
            f"{self.control_covered.mean():.3f}); TR-N {self.tr_n:.3f} (shuffled {self.control_tr_n.mean():.3f})"
        ]
        if run is not None:
            lines.append(
                f"  longest: {run.copies} copies with a period of {run.period} from line {self.lines[run.start]}"
            )
        return "\n".join([*lines, *([f"  {self.stopped}"] if self.stopped else [])])


def structural_repetition(
    source: str, *, kind: Kind = "ast", n_shuffled: int = 20, seed: int = 0
) -> StructuralRepetition:
    """Find the statements of Python `source` that repeat end to end, by `rules_of` of the given kind.

    Raises ValueError for source without a whole statement, source that does not parse (kind "ast"), or fewer than one
    shuffled draw.
    """
    if n_shuffled < 1:
        raise ValueError(f"{n_shuffled} shuffled draws were asked for; a number needs its control: give 1 or more")
    read, stopped = rules_of(source, kind)
    if not read:
        raise ValueError(f"structural repetition was asked of source without a whole statement {stopped or '(none)'}")
    rules = [r.rule for r in read]
    rng = np.random.default_rng(seed)
    draws = [[rules[i] for i in rng.permutation(len(rules))] for _ in range(n_shuffled)]
    runs = tandem_repeats(rules)
    return StructuralRepetition(
        rules=rules,
        lines=np.array([r.line for r in read]),
        runs=np.array(runs, dtype=np.int64).reshape(-1, 3),
        tr_n=_tr_n(rules),
        covered=_covered(runs, len(rules)),
        control_tr_n=np.array([_tr_n(d) for d in draws]),
        control_covered=np.array([_covered(tandem_repeats(d), len(d)) for d in draws]),
        stopped=stopped,
        provenance=Provenance(
            model="no model: source",
            seed=seed,
            settings={"kind": kind, "source": source},
            control=f"the same statements in shuffled order, {n_shuffled} draws",
        ),
    )


def _tr_n(rules: list[str]) -> float:
    return metrics.rep_n(rules, _N) if len(rules) >= _N else float("nan")


def _covered(runs: list[Run], n: int) -> float:
    return len({i for run in runs for i in range(run.start, run.stop)}) / n


def _short(rule: str) -> str:
    from strobe.core.tokens import escape_plotly, show

    return escape_plotly(show(rule, 60))
