"""`HeadScores`: what each head does on a repeat, and what the whole model gains from one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from jaxtyping import Float, Int

from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_TITLES = {
    "induction": "Induction: looks behind the last occurrence",
    "previous": "Previous token: looks one back",
    "duplicate": "Duplicate token: looks at the last occurrence",
    "copying": "Copying: writes the token it looks at",
}


@dataclass(frozen=True)
class HeadScores(Result):
    """`scores`, `control` [head, 3]: induction, previous and duplicate, shares of what is read, on repeated and on
    unrepeated tokens. `copying` [head]: in [-1, 1], NaN where it is not defined. `layers`, `heads`, `kinds`: of each.

    `loss`, `control_loss` [predictions]: nats of the tokens 1 to 2n-1 of repeated and of unrepeated rows. `notes`: by
    layer without heads, why.
    """

    columns: ClassVar[tuple[str, ...]] = ("induction", "previous", "duplicate")
    layers: Int[np.ndarray, " head"]
    heads: Int[np.ndarray, " head"]
    kinds: list[str]
    scores: Float[np.ndarray, "head 3"]
    control: Float[np.ndarray, "head 3"]
    copying: Float[np.ndarray, " head"]
    loss: Float[np.ndarray, " predictions"]
    control_loss: Float[np.ndarray, " predictions"]
    notes: dict[str, str]

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        n = len(set(self.layers.tolist())) + len(self.notes)
        # Results of before blocks were counted are whole.
        asked = self.provenance.settings.get("n_layers", n)
        return "" if n == asked else f"cut short after {n} of {asked} blocks"

    @property
    def gap(self) -> float:
        """Loss of the first copy less that of the second, nats per token: what the model gains from a repeat.

        The first token of the second copy is left out, as nothing says that a repeat begins.
        """
        return self._gap(self.loss)

    @property
    def control_gap(self) -> float:
        """The same where the second copy stands behind other tokens, so that it repeats nothing."""
        return self._gap(self.control_loss)

    def figure(self, score: str = "induction", *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """One score of every head, layer by layer, beside that on unrepeated tokens. Raises ValueError for another."""
        import plotly.graph_objects as go

        from strobe.core import figures

        values, null = self._column(score)
        per_layer = np.array([np.sum(self.layers == layer) for layer in self.layers])
        x = self.layers + (self.heads + 0.5) / np.maximum(per_layer, 1) * 0.7 - 0.35
        where = [f"block {a}, head {b} ({k})" for a, b, k in zip(self.layers, self.heads, self.kinds, strict=True)]
        fig = go.Figure()
        hover = {"customdata": where, "hovertemplate": "%{customdata}: %{y:.3f}<extra></extra>"}
        if null is not None:
            marker = {"color": figures.CONTROL_COLOR, "symbol": "line-ew-open", "size": 7}
            fig.add_scatter(x=x, y=null, mode="markers", name="tokens that do not repeat", marker=marker, **hover)
        for i, kind in enumerate(dict.fromkeys(self.kinds)):
            here = [k == kind for k in self.kinds]
            fig.add_scatter(
                x=x[here],
                y=values[here],
                mode="markers",
                name=kind,
                marker={"color": figures.colors(template)[i], "symbol": figures.SYMBOLS[i], "size": 8},
                customdata=[w for w, h in zip(where, here, strict=True) if h],
                hovertemplate="%{customdata}: %{y:.3f}<extra></extra>",
            )
        fig.update_xaxes(title_text="block", dtick=1, zeroline=False)
        unit = "sum of eigenvalues / sum of moduli" if score == "copying" else "share of what is read"
        fig.update_yaxes(title_text=unit, range=[-1.05, 1.05] if score == "copying" else [0, 1.02])
        subtitle = (
            f"loss of the first copy less that of the second: {self.gap:+.2f} nats (no repeat {self.control_gap:+.2f})"
            f"{'; ' if self.partial else ''}{self.partial}"
        )
        fig.update_layout(title={"text": _TITLES[score], "subtitle": {"text": subtitle}}, margin={"t": 84})
        return figures.style(fig, template)

    def loss_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Loss at each token of the two copies, and of rows that do not repeat."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig, at, n = go.Figure(), np.arange(1, len(self.loss) + 1), (len(self.loss) + 1) // 2
        fig.add_scatter(
            x=at, y=self.control_loss, name="second half repeats nothing", mode="lines",
            line={"color": figures.CONTROL_COLOR, "dash": "dash"},
        )  # fmt: skip
        fig.add_scatter(
            x=at, y=self.loss, name="two copies", mode="lines+markers", line={"color": figures.colors(template)[0]}
        )
        fig.add_vline(x=n - 0.5, line={"width": 1, "dash": "dot"})
        fig.update_xaxes(title_text="token")
        fig.update_yaxes(title_text="cross-entropy (nats)", rangemode="tozero")
        subtitle = f"first copy less second: {self.gap:+.2f} nats per token; without a repeat {self.control_gap:+.2f}"
        fig.update_layout(title={"text": "Loss on random tokens, repeated once", "subtitle": {"text": subtitle}})
        fig.update_layout(margin={"t": 84})
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per head: layer, head, kind, each score and, of all but copying, its control."""
        import pandas

        named = {name: self.scores[:, i] for i, name in enumerate(self.columns)}
        null = {f"{name}_control": self.control[:, i] for i, name in enumerate(self.columns)}
        where = {"layer": self.layers, "head": self.heads, "kind": self.kinds}
        return pandas.DataFrame({**where, **named, "copying": self.copying, **null})

    def summary(self) -> str:
        """The loss gap, the strongest head of each score, and the layers without any."""
        lines = [f"{self.gap:+.3f} nats per token gained from a repeat (without one {self.control_gap:+.3f})"]
        lines += [f"  {self.partial}"] if self.partial else []
        for name in ("induction", "previous", "duplicate", "copying"):
            values, null = self._column(name)
            if not np.isfinite(values).any():
                continue
            best = int(np.nanargmax(values))
            beside = f" (unrepeated {null[best]:.3f})" if null is not None else ""
            lines.append(f"  {name}: block {self.layers[best]} head {self.heads[best]}: {values[best]:.3f}{beside}")
        return "\n".join([*lines, *(f"  block {layer}: {note}" for layer, note in self.notes.items())])

    def _column(self, score: str) -> tuple[np.ndarray, np.ndarray | None]:
        if score == "copying":
            return self.copying, None
        if score not in self.columns:
            raise ValueError(f"score {score!r} was asked for; there are {', '.join((*self.columns, 'copying'))}")
        i = self.columns.index(score)
        return self.scores[:, i], self.control[:, i]

    def _gap(self, second: np.ndarray) -> float:
        n = (len(self.loss) + 1) // 2
        # Predictions of tokens 1..n-1 of each copy; loss[t - 1] is that of token t.
        return float(self.loss[: n - 1].mean() - second[n:].mean())
