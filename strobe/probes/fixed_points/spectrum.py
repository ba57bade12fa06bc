"""`held_fixed_point`: a layer linear in its carry under a held token, solved: where it settles and how fast.

Tokens that come in turn for ever are held just so: at rest the memory is the same after each turn, a cycle.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Complex128, Float64, Inexact

from strobe.core.result import Result
from strobe.probes.fixed_points import classify
from strobe.probes.fixed_points.held import in_words, recurrent_layer, settled_input
from strobe.probes.fixed_points.settling import HeldLayer, after_turn, hold, is_linear, memories, settle
from strobe.probes.provenance import provenance_of

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class HeldFixedPoint(Result):
    """The fixed point of one linear layer under a held token, in closed form, with its whole spectrum.

    `memory` [heads, ...]: the field `field` of the carry at rest, NaN in a head that has no fixed point. `cycle`
    [turn, heads, ...]: the same after each of the tokens held in turn; its last is `memory`. `speed`: how far one turn
    of the recurrence's definition moves it (norm). `eigenvalues` [heads, n]: of that head's transition over a turn,
    each `multiplicity` times. `status` of each head: "stable", "unstable", "continuum", "none". `control`
    [heads, n]: the eigenvalues when the entries of the layer's held input are permuted. A memory without heads has its
    channels as heads.
    """

    version: ClassVar[int] = 2

    layer: int
    mixer: str
    held: str
    field: str
    memory: Inexact[np.ndarray, "heads ..."]
    cycle: Inexact[np.ndarray, "turn heads ..."]
    speed: float
    eigenvalues: Complex128[np.ndarray, "heads n"]
    multiplicity: int
    status: list[str]
    control: Complex128[np.ndarray, "heads n"]

    @property
    def timescales(self) -> Float64[np.ndarray, "heads n"]:
        """-1 / ln |lambda| in tokens: how long what was written before is kept."""
        return self.turn * classify.timescales(self.eigenvalues)

    @property
    def turn(self) -> int:
        """How many tokens are held in turn: 1 for one held token."""
        return len(self.cycle)

    @property
    def norms(self) -> Float64[np.ndarray, " heads"]:
        """Euclidean norm of each head's memory at rest."""
        return np.linalg.norm(self.memory.reshape(len(self.memory), -1), axis=1)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The longest timescale of each head, sorted, beside those under the permuted input."""
        from strobe.probes.fixed_points import figures

        return figures.timescales(self, template)

    def eigenvalue_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Every eigenvalue in the complex plane with the unit circle."""
        from strobe.probes.fixed_points import figures

        return figures.held_eigenvalues(self, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per head and distinct eigenvalue."""
        import pandas as pd

        heads, n = self.eigenvalues.shape
        head = np.repeat(np.arange(heads), n)
        flat = self.eigenvalues.ravel()
        return pd.DataFrame(
            {
                "head": head,
                "status": np.array(self.status, dtype=object)[head],
                "eigenvalue_real": np.real(flat),
                "eigenvalue_imag": np.imag(flat),
                "multiplicity": self.multiplicity,
                "tau": self.timescales.ravel(),
                "tau_control": self.turn * classify.timescales(self.control).ravel(),
                "norm": self.norms[head],
            }
        )

    def summary(self) -> str:
        """Timescales, the fixed point's speed, heads that have none, the control, the provenance."""
        tau, null = self.timescales.ravel(), self.turn * classify.timescales(self.control).ravel()
        counts = ", ".join(f"{self.status.count(s)} {s}" for s in dict.fromkeys(self.status))
        turn = "step" if self.turn == 1 else f"turn of {self.turn} tokens"
        lines = [
            f"layer {self.layer} ({self.mixer}) under {self.held}: heads {counts}",
            f"  timescales {np.nanmin(tau):.3g} to {np.nanmax(tau):.3g} tokens, median {np.nanmedian(tau):.3g} "
            f"(input permuted: {np.nanmin(null):.3g} to {np.nanmax(null):.3g}, median {np.nanmedian(null):.3g})",
            f"  one {turn} moves the fixed point by {self.speed:.2g}",
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


@torch.no_grad()
def held_fixed_point(model: Any, held: Any, layer: int | None = None, *, seed: int = 0) -> HeldFixedPoint:
    """Where a linear layer of `model` settles while a token is held, exactly: M* = (I - A)^-1 B and the spectrum of A.

    `held`: a token id, a text, ids that come in turn, or real inputs (`held.as_inputs`). `layer` may be left out where
    there is only one. Layers below are taken at rest (`strobe.probes.fixed_points.held`). Raises ValueError for a
    nonlinear layer, which `fixed_points` searches.
    """
    layer = recurrent_layer(model, layer)
    name = f"blocks.{layer}.mixer"
    mixer = model.mixers[name]
    x = settled_input(model, held, name)
    here = hold(mixer, x)
    memory, affine = settle(here) if is_linear(mixer) else (None, None)
    if affine is None:
        raise ValueError(
            f"a closed form was asked for, but layer {layer} of {model.model_name} ({mixer.family.name}) is not linear "
            "in its carry; fixed_points searches it"
        )
    order = torch.randperm(x.shape[-1], generator=torch.Generator().manual_seed(seed))
    _, null = settle(hold(mixer, x[:, order]))
    assert null is not None
    return HeldFixedPoint(
        layer=layer,
        mixer=mixer.family.name,
        held=in_words(model, held),
        field=mixer.memory,
        memory=affine.memory.numpy(),
        cycle=memories(here, memory).numpy(),
        speed=_speed(here, memory),
        eigenvalues=affine.eigenvalues.numpy(),
        multiplicity=affine.multiplicity,
        status=affine.status,
        control=null.eigenvalues.numpy(),
        provenance=provenance_of(
            model,
            seed=seed,
            settings={"held": in_words(model, held), "layer": layer, "dtype": "float64"},
            control="the layer's held input with its entries permuted, one draw",
        ),
    )


def _speed(here: HeldLayer, memory: Any) -> float:
    after = after_turn(here, memory)
    # A head without a fixed point is NaN and says so in its status.
    return float(sum(float((a - b).abs().square().nansum()) for a, b in zip(after, memory, strict=True)) ** 0.5)
