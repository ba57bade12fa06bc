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

_SHUFFLES = 100


@dataclass(frozen=True)
class MemoryLaw(Result):
    """`kind` "linear": T = a N + b, `coefficients` (a, b); "exponential": T = a (c^N - 1) + b, (a, c, b). `sizes` and
    `lengths` in the units given. `r2`: variance explained; `control` [shuffles]: with the lengths shuffled."""

    kind: Literal["linear", "exponential"]
    sizes: Float[np.ndarray, " models"]
    lengths: Float[np.ndarray, " models"]
    coefficients: tuple[float, ...]
    r2: float
    control: Float[np.ndarray, " shuffles"]

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
            else f"T = {c[0]:.4g} ({c[1]:.4g}^N − 1) {c[2]:+.4g}"
        )

    def to_frame(self) -> "pandas.DataFrame":
        """One row per model: size, length, fitted."""
        import pandas

        return pandas.DataFrame({"size": self.sizes, "length": self.lengths, "fitted": self.predict(self.sizes)})

    def summary(self) -> str:
        """The law, how well it fits, and the control."""
        said = f"{self.words()}, R^2 {self.r2:.4f} over {len(self.sizes)} models"
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

    Raises ValueError for fewer models than one more than the law has coefficients, or a fit that does not converge.
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
    control = [_explained(kind, n, shuffled) for shuffled in (rng.permutation(t) for _ in range(_SHUFFLES))]
    settings = {"kind": kind, "models": len(n)}
    return MemoryLaw(
        kind=kind,
        sizes=n,
        lengths=t,
        coefficients=coefficients,
        r2=_r2(t, law(kind)(n, *coefficients)),
        control=np.array(control),
        provenance=Provenance(
            model="a family of models", seed=seed, settings=settings, control="lengths in shuffled order"
        ),
    )


def _fit(kind: str, n: np.ndarray, t: np.ndarray) -> tuple[float, ...]:
    if kind == "linear":
        return tuple(float(c) for c in np.polyfit(n, t, 1))
    from scipy.optimize import curve_fit

    # ln c is fitted: it is near 0 at any scale of the sizes, and c stays positive.
    start = np.ptp(t) / max(np.expm1(1.0), 1e-9)
    try:
        (a, rate, b), _ = curve_fit(
            lambda x, a, rate, b: a * np.expm1(rate * x) + b, n, t, p0=(start, 1 / np.ptp(n), t.min()), maxfev=20_000
        )
    except RuntimeError as error:
        raise ValueError(
            f"an exponential law was asked for of sizes {n.tolist()} and lengths {t.tolist()}; no fit converged "
            f"({error}); the lengths may not grow with size: try 'linear'"
        ) from error
    return float(a), float(np.exp(rate)), float(b)


def _explained(kind: str, n: np.ndarray, t: np.ndarray) -> float:
    try:
        return _r2(t, law(kind)(n, *_fit(kind, n, t)))
    except ValueError:
        # Shuffled lengths need not have an exponential fit at all: nothing explained.
        return 0.0


def _r2(t: np.ndarray, fitted: np.ndarray) -> float:
    from sklearn.metrics import r2_score

    return float(r2_score(t, fitted))
