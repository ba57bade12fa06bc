"""One unit along a text: the coloured text of Karpathy, Johnson & Fei-Fei 2015, for any number that is carried."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from strobe.core.result import Result
from strobe.core.tokens import token_html

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_CONTROL = "the same tokens in shuffled order"


@dataclass(frozen=True)
class CellText(Result):
    """`values` [time] of one unit after each of `tokens`, in the units of the carry; not squashed, unlike the paper's
    tanh(c). `control` [time]: the same when the tokens come in a shuffled order, put back beside the tokens they
    belong to: what is left is what the token alone says."""

    tokens: list[str]
    unit: str
    values: Float[np.ndarray, " time"]
    control: Float[np.ndarray, " time"]

    def html(self) -> str:
        """The text with each token coloured by the unit, white at 0; tokens are escaped."""
        return token_html(self.tokens, self.values, name=self.unit)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The unit along the text, with the shuffled text as control."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig = go.Figure()
        for name, values, color, dash in (
            ("control: tokens shuffled", self.control, figures.CONTROL_COLOR, "dot"),
            (self.unit, self.values, figures.colors(template)[0], "solid"),
        ):
            fig.add_scatter(
                x=np.arange(len(values)), y=values, mode="lines", name=name, line={"color": color, "dash": dash}
            )
        figures.token_axis(fig, self.tokens)
        fig.update_yaxes(title_text="value (units of the carry)")
        fig.update_layout(title={"text": f"{self.unit} after each token"})
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per token: position, token, value, value_shuffled."""
        import pandas

        return pandas.DataFrame(
            {
                "position": np.arange(len(self.tokens)),
                "token": self.tokens,
                "value": self.values,
                "value_shuffled": self.control,
            }
        )

    def summary(self) -> str:
        """The unit's range, and how much of it the token alone says."""
        same = np.corrcoef(self.values, self.control)[0, 1] if self.values.std() and self.control.std() else np.nan
        return (
            f"{self.unit} over {len(self.tokens)} tokens: {self.values.min():.3g} to {self.values.max():.3g}; "
            f"correlation with itself when the tokens are shuffled: {same:.2f}"
        )


def cell_text(model: Any, text: str | Sequence[int], layer: int, field: str, index: int, *, seed: int = 0) -> CellText:
    """The unit number `index` of `field` of the carry of `layer` after each token of `text` (a text, or token ids);
    field "residual" in a model without a recurrence.

    Raises ValueError for empty text or a unit that `model` does not have.
    """
    import torch

    from strobe.probes.cells.units import sites_of, stream_units
    from strobe.probes.lens.readout import evaluating
    from strobe.probes.provenance import provenance_of

    site = next((s for s in sites_of(model) if (s.layer, s.field) == (layer, field)), None)
    if site is None or not 0 <= index < site.size:
        have = ", ".join(f"block {s.layer} {s.field} (0 to {s.size - 1})" for s in sites_of(model))
        raise ValueError(
            f"unit {index} of {field} in block {layer} was asked for; {model.model_name} has {have}; give one of these"
        )
    if not len(text):
        raise ValueError("the text is empty: it has no token; give at least one")
    ids = model.tokenize(text)[0][0].cpu().numpy() if isinstance(text, str) else np.asarray(list(text), dtype=np.int64)
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(seed)).numpy()
    with evaluating(model):
        values, shuffled = (
            np.concatenate([u[0, :, index].cpu().numpy() for _, _, u in stream_units(model, row[None], [site])])
            for row in (ids, ids[order])
        )
    words = [f"[{i}]" for i in ids] if model.tokenizer is None else model.to_str_tokens(torch.as_tensor(ids))
    control = np.empty_like(shuffled)
    control[order] = shuffled
    return CellText(
        tokens=[str(word) for word in words],
        unit=site.name(index),
        values=values,
        control=control,
        provenance=provenance_of(
            model,
            seed=seed,
            settings={
                "text": text if isinstance(text, str) else ids.tolist(),
                "layer": layer,
                "field": field,
                "index": index,
            },
            control=_CONTROL,
        ),
    )
