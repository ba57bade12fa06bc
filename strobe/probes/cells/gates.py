"""Gate saturation (Karpathy, Johnson & Fei-Fei 2015, figure 2): how often each gate is nearly shut or nearly open.

A gate is left-saturated where it is below 0.1 and right-saturated where it is above 0.9 (the paper's bounds). A unit
that is always one of the two ignores the text: a forget gate that is always open sums for ever, one that is never
neither makes its cell a feed-forward one.

For a mixer that is linear in its carry there is no such gate; what stands in its place is the decay that multiplies the
old memory (`strobe.kernels.linear.Transition`). That reading is ours, and its name says "decay".
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from strobe.core.result import Result
from strobe.probes.latent_knowledge.features import weights_permuted
from strobe.probes.lens.readout import evaluating
from strobe.probes.provenance import provenance_of
from strobe.probes.repetition.heads import mixer_inputs

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

SHUT, OPEN = 0.1, 0.9
_CONTROL = "the same model with the entries of each weight in random order"
_GATE = "hook_gate_"


@dataclass(frozen=True)
class GateSaturation(Result):
    """`names` of gates, each "block 1 f"; `gate`, `unit` [row]: which gate and unit a row is; `left`, `right` [row]:
    the share of tokens at which it is below 0.1 and above 0.9; `control_left`, `control_right`: the same, weights
    permuted. `n_tokens`: over how many. `notes`: layers that have neither gates nor a decay, and why."""

    names: list[str]
    gate: Int[np.ndarray, " row"]
    unit: Int[np.ndarray, " row"]
    left: Float[np.ndarray, " row"]
    right: Float[np.ndarray, " row"]
    control_left: Float[np.ndarray, " row"]
    control_right: Float[np.ndarray, " row"]
    n_tokens: int
    notes: list[str]

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Each unit's share of tokens right-saturated against left-saturated, a colour for each gate."""
        import plotly.graph_objects as go

        from strobe.core import figures

        palette, fig = figures.colors(template), go.Figure()
        fig.add_scattergl(
            x=self.control_left, y=self.control_right, mode="markers", name="control: weights permuted",
            marker={"size": 5, "color": figures.CONTROL_COLOR, "opacity": 0.5}, hoverinfo="skip",
        )  # fmt: skip
        for g, name in enumerate(self.names):
            rows = self.gate == g
            fig.add_scattergl(
                x=self.left[rows],
                y=self.right[rows],
                mode="markers",
                name=name,
                marker={
                    "size": 6, "opacity": 0.7, "color": palette[g % len(palette)],
                    "symbol": figures.SYMBOLS[g % len(figures.SYMBOLS)],
                },
                text=[f"{name}[{u}]" for u in self.unit[rows]],
                hovertemplate="%{text}: shut %{x:.2f}, open %{y:.2f}<extra></extra>",
            )  # fmt: skip
        fig.update_xaxes(title_text=f"share of tokens below {SHUT} (left-saturated)", range=[-0.02, 1.02])
        fig.update_yaxes(title_text=f"share of tokens above {OPEN} (right-saturated)", range=[-0.02, 1.02])
        fig.update_layout(
            title={"text": "Gate saturation", "subtitle": {"text": f"a point a unit, {self.n_tokens} tokens"}},
            height=560,
            margin={"t": 90},
            legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.15, "yanchor": "top"},
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per gate and unit: gate, unit, left, right, control_left, control_right."""
        import pandas

        return pandas.DataFrame(
            {
                "gate": [self.names[g] for g in self.gate], "unit": self.unit, "left": self.left, "right": self.right,
                "control_left": self.control_left, "control_right": self.control_right,
            }
        )  # fmt: skip

    def summary(self) -> str:
        """Means for each gate, beside the control's, and what has none."""
        lines = [f"gate saturation over {self.n_tokens} tokens: mean share below {SHUT}, above {OPEN} (control)"]
        for g, name in enumerate(self.names):
            rows = self.gate == g
            a, b, c, d = (float(x[rows].mean()) for x in (self.left, self.right, self.control_left, self.control_right))
            lines.append(f"  {name}: {a:.2f}, {b:.2f} ({c:.2f}, {d:.2f})")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def gate_saturation(model: Any, tokens: Any, *, seed: int = 0) -> GateSaturation:
    """Share of tokens at which each gate of each unit is below 0.1 and above 0.9.

    `tokens`: a text, or ids [time] or [row, time]. A gate that is anywhere below 0 is no gate in this sense (the
    candidates of LSTM and GRU) and is left out. Raises ValueError for empty input and for a model without gates or
    decays.
    """
    ids = model.tokenize(tokens)[0] if isinstance(tokens, str) else torch.as_tensor(np.asarray(tokens))
    ids = (ids[None] if ids.ndim == 1 else ids).to(next(model.parameters()).device)
    if not ids.numel():
        raise ValueError("gates were to be watched; the text has no token; give at least one")
    with evaluating(model):
        found, notes = _shares(model, ids)
        with weights_permuted(model, seed):
            control, _ = _shares(model, ids)
    if not found:
        raise ValueError(
            f"gates were to be watched; {model.model_name} has none: {'; '.join(notes) or 'no recurrent layer'}; use a "
            "model with an LSTM, a GRU or a mixer that is linear in its carry"
        )
    sizes = [len(left) for left, _ in found.values()]
    joined = [np.concatenate([by[name][side] for name in found]) for by in (found, control) for side in (0, 1)]
    return GateSaturation(
        names=list(found),
        gate=np.repeat(np.arange(len(found)), sizes),
        unit=np.concatenate([np.arange(size) for size in sizes]),
        left=joined[0],
        right=joined[1],
        control_left=joined[2],
        control_right=joined[3],
        n_tokens=ids.numel(),
        notes=notes,
        provenance=provenance_of(model, seed=seed, settings={"tokens": list(ids.shape)}, control=_CONTROL),
    )


def _shares(model: Any, ids: Tensor) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str]]:
    """(shut, open) [unit] of every gate by name, and what has none."""
    found, notes = {}, []
    for layer in range(model.cfg.n_layers):
        mixer = model.mixers.get(f"blocks.{layer}.mixer")
        if mixer is None:
            notes.append(f"block {layer} carries nothing that a gate could keep")
        elif mixer.gates:
            names = [f"blocks.{layer}.mixer.{_GATE}{gate}" for gate in mixer.gates]
            with torch.no_grad():
                _, cache = model.run_with_cache(ids, names_filter=names)
            gates = {gate: cache[name].flatten(0, 1).flatten(1) for gate, name in zip(mixer.gates, names, strict=True)}
            kept = {f"block {layer} {gate}": _share(x) for gate, x in gates.items() if float(x.min()) >= 0}
            found |= kept
            if not kept:
                notes.append(f"block {layer} ({type(mixer).__name__}) has no gate between 0 and 1")
        elif mixer.family.transition is not None:
            found[f"block {layer} decay"] = _share(_decay(model, mixer, ids).flatten(0, 1).flatten(1))
        else:
            notes.append(f"block {layer} ({type(mixer).__name__}) has no gates, and is not linear in its carry")
    return found, notes


def _decay(model: Any, mixer: Any, ids: Tensor) -> Float[Tensor, "batch time ..."]:
    """What each token multiplies the old memory by; its modulus where that is complex."""
    x = mixer_inputs(model, mixer, ids)
    with torch.no_grad():
        carry = mixer.init_carry(len(x), x.dtype, x.device)
        return mixer.transition(mixer.project(x, carry, None)[0]).decay.abs()


def _share(gate: Float[Tensor, "token unit"]) -> tuple[np.ndarray, np.ndarray]:
    shut, opened = (gate < SHUT).double().mean(0), (gate > OPEN).double().mean(0)
    return shut.cpu().numpy(), opened.cpu().numpy()
