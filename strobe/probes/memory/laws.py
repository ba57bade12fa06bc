"""How far a family of models forgets and recalls, as a function of the size of its state.

Chen et al. 2024 (Stuffed Mamba, arXiv 2410.07145), with N_S the state's size in millions of numbers and T in thousands
of tokens: the length from which a model learns to forget is linear in it, T_forget = 5.172 N_S - 4.469, and the length
it recalls from grows exponentially, T_recall = 4.756 (1.365^N_S - 1) - 0.742. Fitted here to any family of models. The
control is ours: the same fit to the lengths in shuffled order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from strobe.core import figures
from strobe.core.provenance import Provenance
from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

PAPER = {"linear": (5.172, -4.469), "exponential": (4.756, 1.365, -0.742)}
"""Of Mamba-2, sizes in millions of numbers, lengths in thousands of tokens; read in the paper, not measured here."""

_SHUFFLES, _RESAMPLED = 100, 200
# Largest rate over the range of sizes: beyond, a curve is a step between the last two sizes.
_STEEPEST = 30.0


@dataclass(frozen=True)
class MemoryLaw(Result):
    """`kind` "linear": T = a N + b, `coefficients` (a, b); "exponential": T = a (c^N - 1) + b, (a, c, b). `sizes` and
    `lengths` in the units given. `r2`: variance explained, 0 where all lengths are equal; `control` [shuffles]: with
    the lengths shuffled. `intervals` [coefficients, 2]: from the 2.5th to the 97.5th percentile of fits to
    residuals drawn again."""

    kind: Literal["linear", "exponential"]
    sizes: Float[np.ndarray, " models"]
    lengths: Float[np.ndarray, " models"]
    coefficients: tuple[float, ...]
    r2: float
    control: Float[np.ndarray, " shuffles"]
    intervals: Float[np.ndarray, "coefficients 2"]

    @property
    def chance(self) -> float:
        """Share of shuffled orders that are explained as well, the order found counted in."""
        return float((1 + (self.control >= self.r2).sum()) / (1 + len(self.control)))

    @property
    def verdict(self) -> str:
        """Whether lengths grow with size, hardly any shuffled order being explained as well, and as the law says: its
        slope clear of 0, its base of 1, which is a straight line, in the interval."""
        low, high = self.intervals[self._growth]
        likely, name = self.chance <= 0.05, "slope" if self.kind == "linear" else "base"
        said = "growth with size is NOT shown"
        if self.kind == "linear" and low > 0 and likely:
            said = "grows with size"
        elif self.kind == "exponential" and likely and self.predict(self.sizes.max()) > self.predict(self.sizes.min()):
            said = "grows with size, exponentially" if low > 1 else "grows with size; exponentially is NOT shown"
        return (
            f"{said}: {self.words()}, {name} {low:.6g} to {high:.6g} (95 %), R^2 {self.r2:.3f}, "
            f"{100 * self.chance:.0f} % of shuffled orders explained as well"
        )

    @property
    def _growth(self) -> int:
        """Which coefficient says how the lengths grow."""
        return 0 if self.kind == "linear" else 1

    def predict(self, size: float | int | np.ndarray) -> Any:
        """The length at `size`."""
        return law(self.kind)(np.asarray(size, dtype=float), *self.coefficients)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The models and the fitted curve."""
        import plotly.graph_objects as go

        at = np.linspace(self.sizes.min(), self.sizes.max(), 100)
        palette = figures.colors(template)
        fig = go.Figure()
        fig.add_scatter(x=at, y=self.predict(at), mode="lines", name=f"{self.kind} fit", line={"color": palette[1]})
        fig.add_scatter(
            x=self.sizes, y=self.lengths, mode="markers", name="models", marker={"color": palette[0], "size": 9}
        )
        fig.update_xaxes(title_text="size of the state (as given)")
        fig.update_yaxes(title_text="length (as given)")
        note = f"{self.words()}; R² {self.r2:.3f}, lengths shuffled (control) {np.median(self.control):.3f}"
        title = {"text": "Length against the size of the state", "subtitle": {"text": note}}
        fig.update_layout(title=title, margin={"t": 84}, height=400)
        return figures.style(fig, template)

    def words(self) -> str:
        """The law with its coefficients."""
        c = self.coefficients
        return (
            f"T = {c[0]:.4g} N {c[1]:+.4g}"
            if self.kind == "linear"
            else f"T = {c[0]:.4g} ({c[1]:.6g}^N − 1) {c[2]:+.4g}"
        )

    def to_frame(self) -> "pandas.DataFrame":
        """One row per model: size, length, fitted."""
        import pandas

        return pandas.DataFrame({"size": self.sizes, "length": self.lengths, "fitted": self.predict(self.sizes)})

    def summary(self) -> str:
        """The law, how well it fits, and the control."""
        said = f"{self.words()}, R^2 {self.r2:.4f} over {len(self.sizes)} models: {self.verdict}"
        control = (
            f"  lengths shuffled (control): R^2 median {np.median(self.control):.3f}, up to {self.control.max():.3f}"
        )
        return "\n".join([said, control, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def law(kind: str) -> Callable[..., Any]:
    """The function of a law. Raises ValueError for another kind."""
    if kind == "linear":
        return lambda n, a, b: a * n + b
    if kind == "exponential":
        return lambda n, a, c, b: a * (c**n - 1) + b
    raise ValueError(f"a law of the kind {kind!r} was asked for; there are 'linear' and 'exponential'")


def fit_law(
    kind: Literal["linear", "exponential"],
    sizes: Sequence[float | int],
    lengths: Sequence[float | int],
    *,
    seed: int = 0,
) -> MemoryLaw:
    """Fit `lengths` (T_forget or T_recall of each model) to `sizes` by least squares.

    Raises ValueError for fewer different sizes than one more than the law has coefficients.
    """
    n, t = np.asarray(sizes, dtype=float), np.asarray(lengths, dtype=float)
    needed = 3 if kind == "linear" else 4
    if n.shape != t.shape or n.ndim != 1 or len(np.unique(n)) < needed or not np.isfinite([n, t]).all():
        raise ValueError(
            f"a {kind} law was asked for of {len(n)} sizes and {len(t)} lengths; give a finite length for each of "
            f"{needed} different sizes at least"
        )
    coefficients = _fit(kind, n, t)
    rng = np.random.default_rng(seed)
    shuffles = [rng.permutation(t) for _ in range(_SHUFFLES)]
    control = [_r2(shuffled, law(kind)(n, *_fit(kind, n, shuffled))) for shuffled in shuffles]
    settings = {"kind": kind, "models": len(n)}
    return MemoryLaw(
        kind=kind,
        sizes=n,
        lengths=t,
        coefficients=coefficients,
        r2=_r2(t, law(kind)(n, *coefficients)),
        control=np.array(control),
        intervals=_intervals(kind, n, t, coefficients, rng),
        provenance=Provenance(
            model="a family of models", seed=seed, settings=settings, control="lengths in shuffled order"
        ),
    )


def _fit(kind: str, n: np.ndarray, t: np.ndarray) -> tuple[float, ...]:
    if np.ptp(t) == 0:
        # Exactly none, where rounding would leave a slope of 1e-18 and an interval that excludes 0.
        return (0.0, float(t[0])) if kind == "linear" else (0.0, 1.0, float(t[0]))
    if kind == "linear":
        return tuple(float(c) for c in np.polyfit(n, t, 1))
    return _exponential(n, t)


def _exponential(n: np.ndarray, t: np.ndarray) -> tuple[float, float, float]:
    """(a, c, b) of a (c^n - 1) + b by least squares: for each rate the rest is a line, so the rate alone is searched
    (variable projection, Golub & Pereyra 1973), from a grid, up to e^30 over the range of sizes. Always an answer."""
    from scipy.optimize import minimize_scalar

    span = float(np.ptp(n))
    x, y = (n - n.min()) / span, t - t.mean()

    def line(rate: Any) -> tuple[Any, Any]:
        """(slope on e^(rate x) - 1, sum of squares left), for rates of any shape."""
        basis = np.expm1(np.asarray(rate)[..., None] * x)
        basis = basis - basis.mean(-1, keepdims=True)
        slope = basis @ y / (basis**2).sum(-1)
        return slope, ((y - slope[..., None] * basis) ** 2).sum(-1)

    grid = np.geomspace(1e-3, _STEEPEST, 60)
    grid = np.concatenate([-grid[::-1], grid])
    best = int(line(grid)[1].argmin())
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(lambda r: float(line(r)[1]), bounds=bounds, method="bounded", options={"xatol": 1e-12})
    # Between -1e-3 and 1e-3 lies a straight line, where a grows without bound; the better end is taken.
    rate = float(found.x) if abs(found.x) > abs(grid[60]) else float(grid[best])
    slope = float(line(rate)[0])
    offset = t.mean() - slope * np.expm1(rate * x).mean()
    a = slope * np.exp(-rate * n.min() / span)
    return float(a), float(np.exp(rate / span)), float(offset - slope + a)


def _intervals(kind: str, n: np.ndarray, t: np.ndarray, fitted: tuple[float, ...], rng: np.random.Generator) -> Any:
    """[coefficients, 2], by residuals drawn again with replacement (Efron 1979), widened for what the fit took up."""
    line = law(kind)(n, *fitted)
    left = (t - line) * np.sqrt(len(n) / (len(n) - len(fitted)))
    found = [_fit(kind, n, line + rng.choice(left, len(n))) for _ in range(_RESAMPLED)]
    return np.quantile(found, (0.025, 0.975), axis=0).T


def _r2(t: np.ndarray, fitted: np.ndarray) -> float:
    from sklearn.metrics import r2_score

    # r2_score calls a constant that is hit a perfect fit; where nothing varies there is nothing to explain.
    return float(r2_score(t, fitted)) if np.ptp(t) > 0 else 0.0
