"""`held_stack`: the fixed point of a whole model under a held token, layer by layer, and the spectrum of all of it.

With a token held, layer l + 1 reads what layer l comes to, and layer l never hears of layer l + 1: the Jacobian of all
the carries together is block-triangular, so that its eigenvalues are those of the layers, one after the other, beside
zeros for windows and token shifts, which forget in as many steps as they are long.
"""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Complex128, Float64, Int
from torch import Tensor

from strobe.core.result import Result
from strobe.probes.fixed_points import classify
from strobe.probes.fixed_points.held import as_inputs, in_words, recurrent_layer, settled_layers
from strobe.probes.fixed_points.settling import HeldLayer, after_turn, hold, settle
from strobe.probes.provenance import provenance_of

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class HeldStack(Result):
    """Every recurrent layer of a model at rest under a held token or turn of tokens.

    `names`, `families` [layer]: the mixers from the bottom up. `status` [layer]: "stable", "unstable", "continuum" or
    "none", the worst of the layer's heads. `norms` [layer]: of the memory at rest. `moved` [layer]: how far one turn of
    the model itself, in its own precision, moves the carry from there, relative to its size. `eigenvalues` [n] with the
    layer `of` [n] they belong to, each `multiplicity` [n] times: together the whole spectrum over a turn of `turn`
    tokens, but for the zeros of windows. `control` [n]: the same when each layer's held input is permuted, NaN for a
    layer that was run to rest and not solved.
    """

    held: str
    turn: int
    names: list[str]
    families: list[str]
    status: list[str]
    norms: Float64[np.ndarray, " layers"]
    moved: Float64[np.ndarray, " layers"]
    eigenvalues: Complex128[np.ndarray, " n"]
    of: Int[np.ndarray, " n"]
    multiplicity: Int[np.ndarray, " n"]
    control: Complex128[np.ndarray, " n"]

    @property
    def timescales(self) -> Float64[np.ndarray, " n"]:
        """-turn / ln |lambda| in tokens."""
        return self.turn * classify.timescales(self.eigenvalues)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The timescales of every layer, from the bottom up, beside those under the permuted input."""
        from strobe.probes.fixed_points import stack_figure

        return stack_figure.timescales(self, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per distinct eigenvalue: its layer, how often it counts, its timescale and the control's."""
        import pandas as pd

        return pd.DataFrame(
            {
                "layer": np.array(self.names, dtype=object)[self.of],
                "family": np.array(self.families, dtype=object)[self.of],
                "status": np.array(self.status, dtype=object)[self.of],
                "eigenvalue_real": np.real(self.eigenvalues),
                "eigenvalue_imag": np.imag(self.eigenvalues),
                "multiplicity": self.multiplicity,
                "tau": self.timescales,
                "tau_control": self.turn * classify.timescales(self.control),
                "norm": self.norms[self.of],
                "moved": self.moved[self.of],
            }
        )

    def summary(self) -> str:
        """Each layer's timescales beside the control's, how still the model stands there, and the provenance."""
        lines = [f"{self.provenance.model} at rest under {self.held}"]
        null = self.turn * classify.timescales(self.control)
        for i, name in enumerate(self.names):
            tau, other = self.timescales[self.of == i], null[self.of == i]
            beside = "run to rest, no control" if np.isnan(other).all() else f"input permuted {np.median(other):.3g}"
            lines.append(
                f"  {name} ({self.families[i]}, {self.status[i]}): median tau {np.median(tau):.3g}, longest "
                f"{tau.max():.3g} tokens ({beside}); one turn moves it by {self.moved[i]:.2g} of its size"
            )
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


@torch.no_grad()
def held_stack(model: Any, held: Any, *, seed: int = 0) -> HeldStack:
    """Every recurrent layer of `model` at rest under `held` (`held_fixed_point`), and the spectrum of the whole.

    Linear layers are solved, and nonlinear ones run from the empty carry until they stand still, then linearised there.
    Raises ValueError for a model without a recurrent layer, and where a layer below another never comes to rest.
    """
    from strobe.probes.fixed_points.held import recurrent_layers

    if not recurrent_layers(model):
        recurrent_layer(model, None)
    layers, state = settled_layers(model, held)
    layers = [one for one in layers if one[1].start]
    _, after = model.forward(as_inputs(model, held), state, return_type="state")
    spectra = [_spectrum(here, memory, affine, seed) for _, here, memory, affine in layers]
    said = in_words(model, held)
    return HeldStack(
        held=said,
        turn=len(layers[0][1].phases),
        names=[name for name, *_ in layers],
        families=[here.mixer.family.name for _, here, _, _ in layers],
        status=[worst for _, _, _, worst in spectra],
        norms=np.array([float(memory[0].norm()) for _, _, memory, _ in layers]),
        moved=np.array([_moved(state.carries[name], after.carries[name]) for name, *_ in layers]),
        eigenvalues=np.concatenate([values for values, *_ in spectra]),
        of=np.repeat(np.arange(len(layers)), [len(values) for values, *_ in spectra]),
        multiplicity=np.concatenate([np.full(len(values), times) for values, times, *_ in spectra]),
        control=np.concatenate([null for _, _, null, _ in spectra]),
        provenance=provenance_of(
            model,
            seed=seed,
            settings={"held": said, "dtype": "float64"},
            control="each layer's held input with its entries permuted, one draw",
        ),
    )


_BADNESS = ("stable", "unstable", "continuum", "none")


def _spectrum(here: HeldLayer, memory: Any, affine: Any, seed: int) -> tuple[np.ndarray, int, np.ndarray, str]:
    """(eigenvalues [n], how often each counts, the control's, the worst of the heads' statuses)."""
    if affine is None:
        values = _linearised(here, memory)
        return values, 1, np.full(len(values), np.nan, dtype=np.complex128), "stable"
    x = here.mixer_input
    order = torch.randperm(x.shape[-1], generator=torch.Generator().manual_seed(seed))
    _, null = settle(hold(here.mixer, x[:, order]))
    assert null is not None
    worst = max(affine.status, key=_BADNESS.index)
    return affine.eigenvalues.flatten().numpy(), affine.multiplicity, null.eigenvalues.flatten().numpy(), worst


def _linearised(here: HeldLayer, memory: Any) -> np.ndarray:
    shapes = [x.shape for x in memory]
    sizes = [prod(shape) for shape in shapes]

    def turn(flat: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        return torch.cat([x.flatten() for x in after_turn(here, type(memory)(*parts))])

    J = torch.func.jacrev(turn)(torch.cat([x.flatten() for x in memory]))
    return torch.linalg.eigvals(J).numpy()


def _moved(before: Any, after: Any) -> float:
    """Relative Euclidean distance over all fields; NaN and its like, where a head has no rest, left out."""
    pairs = list(zip(before, after, strict=True))
    gap = sum(float((a.double() - b.double()).square().nansum()) for a, b in pairs)
    size = sum(float(a.double().square().nansum()) for a, _ in pairs)
    return (gap / max(size, 1e-300)) ** 0.5
