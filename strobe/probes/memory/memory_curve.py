"""Memory curve: how well a linear readout of the carry recovers the token of k steps ago.

For a linear readout of one-hot tokens: R^2(k), the share of variance explained on held-out positions, and its sum, the
linear memory capacity of Jaeger 2001 ("Short term memory in echo state networks"), which no more than the size of the
carry can bound for independent inputs: sum over k of R^2(k) <= D, with equality for a shift register.

The caveat that the curve must be read with: a linear readout does not mind scale. A trace that has decayed to 1e-6 of
its size, with nothing above it, is read as well as a fresh one, and a model that adds noise or rounds could not use it.
So every curve is measured twice, the second time with noise of `noise` times the carry's own size added: what falls
there was readable only because float32 is precise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from strobe.core import figures
from strobe.core.result import Result
from strobe.probes.memory.streaming import Tick, as_inputs, pieces
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of
from strobe.probes.states import recurrent_layers

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# Numbers of a carry that the readout is given; a longer one is projected onto as many random directions.
_SIZE = 512


@dataclass(frozen=True)
class MemoryCurve(Result):
    """`r2` [lags] of the token `lags[i]` steps back, read from the carry after each token (lag 0 is the token just
    written); `noisy` [lags]: with noise of `noise` times the carry's root mean square; `control` [lags]: the tokens of
    another, unrelated row. `accuracy` [lags]: how often the largest readout is the right token, `chance` that of the
    most frequent one. `size`: numbers the readout was given, of the `full_size` of the carry. Of a run that was cut
    short, the lags that were reached."""

    layer: int
    lags: tuple[int, ...]
    r2: Float[np.ndarray, " lags"]
    noisy: Float[np.ndarray, " lags"]
    control: Float[np.ndarray, " lags"]
    accuracy: Float[np.ndarray, " lags"]
    chance: float
    noise: float
    size: int
    full_size: int

    @property
    def partial(self) -> str:
        """How many of the lags were reached, in words; empty where all were."""
        asked = len(self.provenance.settings.get("lags", self.lags))
        return "" if len(self.lags) == asked else f"cut short after {len(self.lags)} of {asked} lags"

    @property
    def capacity(self) -> float:
        """Sum of R^2 over the lags measured, negative ones as 0: at most the number of lags."""
        return float(np.clip(self.r2, 0, None).sum())

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """R^2 against the lag: as it is, with noise, and of another row as control."""
        import plotly.graph_objects as go

        fig, palette = go.Figure(), figures.colors(template)
        for name, values, colour, dash in (
            ("another row's tokens (control)", self.control, figures.CONTROL_COLOR, "dot"),
            (f"with noise of {self.noise:g} of its size", self.noisy, palette[1], "dash"),
            ("as it is", self.r2, palette[0], "solid"),
        ):
            fig.add_scatter(
                x=self.lags, y=values, mode="lines+markers", name=name, line={"color": colour, "dash": dash}
            )
        fig.update_xaxes(title_text="lag k (tokens)")
        fig.update_yaxes(
            title_text="R² of a linear readout, held out", range=[min(-0.05, float(self.control.min())), 1.02]
        )
        said = f"capacity {self.capacity:.2f} over {len(self.lags)} lags; {self.size} of {self.full_size} numbers read"
        note = "; ".join(filter(None, (self.partial, said)))
        title = {"text": f"Memory curve of layer {self.layer}", "subtitle": {"text": note}}
        fig.update_layout(title=title, margin={"t": 84}, height=400)
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per lag."""
        import pandas

        columns = {name: getattr(self, name) for name in ("r2", "noisy", "control", "accuracy")}
        return pandas.DataFrame({"lag": self.lags, **columns})

    def summary(self) -> str:
        """The capacity with and without noise, beside the control."""
        noisy = float(np.clip(self.noisy, 0, None).sum())
        lines = [
            f"layer {self.layer}: linear capacity {self.capacity:.3f} over lags {self.lags[0]} to {self.lags[-1]} "
            f"({noisy:.3f} with noise of {self.noise:g} of the carry's size)",
            f"  another row's tokens (control): {np.clip(self.control, 0, None).sum():.3f}",
            "  a linear readout does not mind scale: what only the first figure has, the model may be unable to use",
            *([f"  {self.partial}"] if self.partial else []),
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def memory_curve(
    model: Any,
    inputs: Any,
    layer: int,
    *,
    lags: Sequence[int] = tuple(range(24)),
    noise: float = 0.01,
    ridge: float = 1e-6,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[MemoryCurve], None] | None = None,
) -> MemoryCurve:
    """The memory curve of `layer` along `inputs` [rows, time], token ids, best drawn independently.

    The readout is fitted on the first half of the rows and judged on the second. `ridge`: penalty relative to the
    carry's mean variance. Where `progress` raises, `partial` is given the lags that were read. Raises ValueError for
    fewer than four rows, numbers for tokens, a layer without a recurrence, a lag the inputs are too short for, or fewer
    carries to fit on than twice the numbers read.
    """
    x = as_inputs(model, inputs)
    rows, time = x.shape[:2]
    wanted, have = sorted(set(lags)), recurrent_layers(model)
    if layer not in have or rows < 4 or x.is_floating_point() or not wanted or wanted[0] < 0 or wanted[-1] >= time:
        raise ValueError(
            f"the memory curve of layer {layer} was asked for, lags {wanted[:1]} to {wanted[-1:]}, of {rows} rows of "
            f"{time}; layers with a recurrence: {', '.join(map(str, have)) or 'none'}; give four rows of token ids at "
            "least, and lags below their length"
        )
    features, full = _carries(model, x, layer, seed)
    tokens = x.cpu().numpy()
    rng = np.random.default_rng(seed)
    shaken = features + noise * np.sqrt((features**2).mean()) * rng.standard_normal(features.shape)
    half, names = rows // 2, np.unique(tokens)
    if (samples := half * (time - wanted[-1])) < 2 * features.shape[2]:
        raise ValueError(
            f"a readout of {features.shape[2]} numbers was to be fitted on {samples} carries, which it could learn by "
            "heart; give more or longer rows"
        )
    found = {name: np.zeros(len(wanted)) for name in ("r2", "noisy", "control", "accuracy")}
    settings = {"layer": layer, "lags": wanted, "rows": rows, "time": time, "noise": noise, "ridge": ridge}

    def result(done: int) -> MemoryCurve:
        return MemoryCurve(
            layer=layer,
            lags=tuple(wanted[:done]),
            **{name: values[:done].copy() for name, values in found.items()},
            chance=float(max((tokens == name).mean() for name in names)),
            noise=noise,
            size=features.shape[2],
            full_size=full,
            provenance=provenance_of(model, seed=seed, settings=settings, control="the tokens of another row"),
        )

    tick = keeping(progress, partial, lambda: result(i + 1))
    for i, lag in enumerate(wanted):
        ago = tokens[:, : time - lag] if lag else tokens
        said = (ago[..., None] == names).astype(np.float64)
        other = np.concatenate([np.roll(said[:half], 1, 0), np.roll(said[half:], 1, 0)])
        found["r2"][i], found["accuracy"][i] = _readout(features[:, lag:], said, half, ridge)
        found["noisy"][i] = _readout(shaken[:, lag:], said, half, ridge)[0]
        found["control"][i] = _readout(features[:, lag:], other, half, ridge)[0]
        tick(i + 1, len(wanted), f"lag {lag}")
    return result(len(wanted))


def _carries(model: Any, x: Any, layer: int, seed: int) -> tuple[np.ndarray, int]:
    """(the memory after every token [rows, time, size] in float64, projected where it is longer than 512; its size)."""
    parts, full, onto = [], 0, None
    for part in pieces(model, x, every=1, layers=[layer], piece=256):
        memory = part.memories[layer]
        flat = (memory.abs() if memory.is_complex() else memory).flatten(2).double().cpu().numpy()
        full = flat.shape[2]
        if full > _SIZE:
            onto = np.random.default_rng(seed).standard_normal((full, _SIZE)) / np.sqrt(full) if onto is None else onto
            flat = flat @ onto
        parts.append(flat)
    return np.concatenate(parts, 1), full


def _readout(features: np.ndarray, said: np.ndarray, half: int, ridge: float) -> tuple[float, float]:
    """(R^2 over all token columns, accuracy) on the second half of the rows of a readout fitted on the first."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    train, test = features[:half].reshape(-1, features.shape[2]), features[half:].reshape(-1, features.shape[2])
    y, truth = said[:half].reshape(-1, said.shape[2]), said[half:].reshape(-1, said.shape[2])
    penalty = ridge * len(train) * float(train.var(0).mean())
    fitted = Ridge(alpha=max(penalty, np.finfo(float).tiny), solver="cholesky").fit(train, y)
    guess = np.atleast_2d(fitted.predict(test)).reshape(len(test), -1)
    score = r2_score(truth, guess, multioutput="variance_weighted")
    return float(score), float((guess.argmax(1) == truth.argmax(1)).mean())
