"""`LensTrajectory`: how the prediction at each token of one text forms over the layers."""

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from strobe.core.result import Result
from strobe.probes.lens.prediction_depth import prediction_depths

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class LensTrajectory(Result):
    """What the model would predict after each layer, at each token of one text, by one or two lenses.

    Axes: lens as in `lenses` ("tuned" first, "logit" is its control: the same lens untrained); layer 0..L (0 the
    embedding output, L the model's own output); time. Divergences and entropies in nats; ranks count from 1.

    `top_ids`, `top_probabilities`
        The k most probable tokens, most probable first.
    `final_rank`
        Rank, at this layer, of the token that the model predicts in the end.
    `target_rank`, `target_probability`, `cross_entropy`
        Of the token that comes next in the text; NaN at the last token, whose next is unknown.
    `entropy`, `kl`
        Of the lens's distribution; KL(final || lens), zero at layer L.
    `control_kl`, `control_cross_entropy`
        Of a null lens (`provenance.control` says which): a lens that does no better has read nothing at this token.
    `vocabulary`
        Text of every token id that occurs. `n_bytes`: of the text, None where the model has no tokenizer;
        `n_spelling_tokens`: how many tokens spell them (special tokens spell none).
    """

    lenses: tuple[str, ...]
    token_ids: Int[np.ndarray, " time"]
    vocabulary: dict[int, str]
    top_ids: Int[np.ndarray, "lens layer time k"]
    top_probabilities: Float[np.ndarray, "lens layer time k"]
    final_rank: Int[np.ndarray, "lens layer time"]
    target_rank: Float[np.ndarray, "lens layer time"]
    target_probability: Float[np.ndarray, "lens layer time"]
    entropy: Float[np.ndarray, "lens layer time"]
    kl: Float[np.ndarray, "lens layer time"]
    cross_entropy: Float[np.ndarray, "lens layer time"]
    control_kl: Float[np.ndarray, "layer time"]
    control_cross_entropy: Float[np.ndarray, "layer time"]
    n_bytes: int | None
    n_spelling_tokens: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kl.shape != (len(self.lenses), *self.control_kl.shape) or self.kl.shape[2] != len(self.token_ids):
            raise ValueError(
                f"a trajectory of {len(self.lenses)} lenses and {len(self.token_ids)} tokens was given kl of shape "
                f"{self.kl.shape} and a control of shape {self.control_kl.shape}; make the shapes agree"
            )

    @property
    def n_layers(self) -> int:
        """L: layers run from 0 to L."""
        return self.kl.shape[1] - 1

    @property
    def tokens(self) -> list[str]:
        """The text of each token."""
        return [self.vocabulary[int(i)] for i in self.token_ids]

    @property
    def top_tokens(self) -> np.ndarray:
        """The texts of `top_ids`, [lens, layer, time, k]."""
        return np.vectorize(lambda i: self.vocabulary[int(i)], otypes=[np.str_])(self.top_ids)

    def lens_index(self, lens: str | None) -> int:
        """Where `lens` is in `lenses`; None for the first. Raises ValueError for one that was not read."""
        if lens is None:
            return 0
        if lens not in self.lenses:
            raise ValueError(f"lens {lens!r} was asked for; this trajectory was read with {', '.join(self.lenses)}")
        return self.lenses.index(lens)

    def statistic(self, name: str, lens: str | None = None) -> Float[np.ndarray, "layer time"]:
        """One statistic of one lens: "kl", "entropy", "cross_entropy" (nats), "rank" (of the final token),
        "probability" (of the next token). Raises ValueError for another name.
        """
        fields = {
            "kl": self.kl,
            "entropy": self.entropy,
            "cross_entropy": self.cross_entropy,
            "rank": self.final_rank.astype(float),
            "probability": self.target_probability,
        }
        if name not in fields:
            raise ValueError(f"statistic {name!r} was asked for; a trajectory has {', '.join(fields)}")
        return fields[name][self.lens_index(lens)]

    @property
    def unit(self) -> str:
        """What `curve` is in: "bits/byte", or "bits/token" where the number of bytes is unknown."""
        return "bits/token" if self.n_bytes is None else "bits/byte"

    def curve(self, lens: str | None = None) -> Float[np.ndarray, " layer"]:
        """Cross-entropy of the text at each layer, in `unit`; the unscored last prediction counts as an average one."""
        return self._in_unit(self.cross_entropy[self.lens_index(lens)])

    def control_curve(self) -> Float[np.ndarray, " layer"]:
        """As `curve`, for the control."""
        return self._in_unit(self.control_cross_entropy)

    def _in_unit(self, nats: np.ndarray) -> np.ndarray:
        if nats.shape[1] < 2:
            return np.full(nats.shape[0], np.nan)
        per_unit = 1.0 if self.n_bytes is None else self.n_spelling_tokens / self.n_bytes
        return nats[:, :-1].mean(1) * per_unit / log(2)

    def figure(
        self,
        statistic: str = "kl",
        lens: str | None = None,
        *,
        first: int = 0,
        n_tokens: int = 64,
        max_rows: int = 24,
        zmax: float | None = None,
        template: str = "strobe_light",
    ) -> "plotly.graph_objects.Figure":
        """Layers by tokens, coloured by `statistic` (see `statistic`), the most probable token in each cell.

        Tokens ``first .. first + n_tokens - 1``; layers are strided to at most `max_rows` rows, with 0 and L always
        among them; what is left out is said in the title. x is the token's position and y the layer, as integers, so
        that a click returns them. `zmax`: the value of the full colour, to compare figures.
        """
        from strobe.probes.lens.trajectory_figures import heatmap

        return heatmap(self, statistic, lens, first, n_tokens, max_rows, zmax, template)

    def token_figure(
        self, position: int, lens: str | None = None, *, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """The k most probable next tokens after each layer at one `position` (negative ones count from the end)."""
        from strobe.probes.lens.trajectory_figures import token_heatmap

        return token_heatmap(self, position, lens, template)

    def curve_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Cross-entropy of the text at each layer, in bits per byte: each lens, the model and the control."""
        from strobe.probes.lens.trajectory_figures import curve

        return curve(self, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per lens, layer and token."""
        import pandas as pd

        n_lens, n_layer, n_time = self.kl.shape
        lens, layer, position = (a.ravel() for a in np.indices((n_lens, n_layer, n_time)))
        tokens = np.array(self.tokens, dtype=object)
        columns: dict[str, Any] = {
            "lens": np.array(self.lenses, dtype=object)[lens],
            "layer": layer,
            "depth": layer / self.n_layers,
            "position": position,
            "token": tokens[position],
            "top_token": self.top_tokens[..., 0].ravel(),
            "top_probability": self.top_probabilities[..., 0].ravel(),
        }
        for name in ("final_rank", "target_rank", "target_probability", "entropy", "kl", "cross_entropy"):
            columns[name] = getattr(self, name).ravel()
        columns["control_kl"] = np.broadcast_to(self.control_kl, self.kl.shape).ravel()
        columns["control_cross_entropy"] = np.broadcast_to(self.control_cross_entropy, self.kl.shape).ravel()
        return pd.DataFrame(columns)

    def summary(self) -> str:
        """Mean KL per lens at a few depths, when the final token first leads, the control, the provenance."""
        rows = sorted({0, self.n_layers // 4, self.n_layers // 2, 3 * self.n_layers // 4, self.n_layers})
        lines = [f"Lens trajectory of {len(self.token_ids)} tokens over {self.n_layers} layers"]
        for i, lens in enumerate(self.lenses):
            values = ", ".join(f"{self.kl[i, r].mean():.3g} at layer {r}" for r in rows)
            lines.append(f"  {lens} lens: mean KL(final || lens) {values} (nats)")
            depth = prediction_depths(self.top_ids[i, :, :, 0]).mean()
            lines.append(f"  {lens} lens: the final prediction leads for good from layer {depth:.1f} on average")
        lines.append(
            f"  control: mean KL {self.control_kl[: self.n_layers].mean():.3g} nats ({self.provenance.control})"
        )
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])
