"""The dynamical-systems view of a mixer: M_t = A_t M_{t-1} + B_t and what is read, token by token, for two models.

The view that state-space models are written in, taken for any recurrent mixer (after Sieber et al. 2024,
arXiv:2405.15731, who put attention, SSMs and RNNs into that one form; which numbers are shown is ours). A_t is shown by
the moduli of its eigenvalues, B_t by its norm, and C_t by the norm of the read, in which it appears. A mixer that is
not linear in its carry is linearised along the text, and this is ours: A_t is the Jacobian of its step at the memory it
has before token t, and B_t what is left, M_t - A_t M_{t-1}.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.core.result import Result
from strobe.probes.latent_knowledge.features import weights_permuted
from strobe.probes.lens.readout import evaluating
from strobe.probes.provenance import provenance_of
from strobe.probes.repetition.heads import mixer_inputs

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_CONTROL = "the same model with the entries of each weight in random order"
# Floating point operations that eigenvalues of Jacobians along a text may take, at 25 n^3 each: about a minute.
_WORK = 5e10
# Lowest, quartiles and highest of the moduli at each token.
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class TransitionView(Result):
    """`moduli` [model, time, 5]: `QUANTILES` of |eigenvalue of A_t| over the whole memory; `write`, `read` [model,
    time]: Euclidean norms of B_t and of what is read. `models`: what each row is, and whether it was linearised; the
    last is the control, the first model with its weights permuted. `tokens` [time]."""

    tokens: list[str]
    models: list[str]
    moduli: Float[np.ndarray, "model time 5"]
    write: Float[np.ndarray, "model time"]
    read: Float[np.ndarray, "model time"]

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Median |eigenvalue| with its quartiles, write and read norms, under each other."""
        from plotly.subplots import make_subplots

        from strobe.core import figures

        fig = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05)
        time = np.arange(len(self.tokens))
        for m, name in enumerate(self.models):
            control = m == len(self.models) - 1
            color = figures.CONTROL_COLOR if control else figures.colors(template)[m]
            line = {"color": color, "dash": figures.DASHES[m]}
            spread = {
                "type": "data", "symmetric": False, "array": self.moduli[m, :, 3] - self.moduli[m, :, 2],
                "arrayminus": self.moduli[m, :, 2] - self.moduli[m, :, 1], "width": 0, "thickness": 1,
            }  # fmt: skip
            for row, values in enumerate((self.moduli[m, :, 2], self.write[m], self.read[m]), 1):
                fig.add_scatter(
                    x=time, y=values, mode="lines", name=name, legendgroup=name, showlegend=row == 1, line=line,
                    error_y=spread if row == 1 else None, row=row, col=1,
                )  # fmt: skip
        for row, title in enumerate(("|eigenvalue of A|", "norm of the write", "norm of the read"), 1):
            fig.update_yaxes(title_text=title, row=row, col=1)
        figures.token_axis(fig, self.tokens, row=3, col=1)
        fig.update_layout(
            title={
                "text": "What each token does to the memory",
                "subtitle": {"text": "median and quartiles of moduli"},
            },
            height=760,
            margin={"t": 110},
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per model and token: the five quantiles of moduli, write and read."""
        import pandas

        rows = [
            (model, t, token, *self.moduli[m, t], self.write[m, t], self.read[m, t])
            for m, model in enumerate(self.models)
            for t, token in enumerate(self.tokens)
        ]
        names = ["lowest", "lower_quartile", "median", "upper_quartile", "highest"]
        return pandas.DataFrame(rows, columns=["model", "position", "token", *names, "write", "read"])

    def summary(self) -> str:
        """Means over tokens for each model."""
        return "\n".join(
            f"{name}: median |eigenvalue| {self.moduli[m, :, 2].mean():.3f}, highest {self.moduli[m, :, 4].max():.3f}, "
            f"write {self.write[m].mean():.3g}, read {self.read[m].mean():.3g} (means over {len(self.tokens)} tokens)"
            for m, name in enumerate(self.models)
        )


def transition_view(models: Sequence[tuple[Any, int]], text: str | Sequence[int], *, seed: int = 0) -> TransitionView:
    """A_t, B_t and the read of one or more (model, layer) along `text` (a text, or ids).

    Raises ValueError for no model, a layer without a recurrent carry or with one that is kept relative to a running
    maximum, a text too long for the Jacobians of a large carry, and models that cut the text into different tokens,
    which cannot stand side by side.
    """
    if not models:
        raise ValueError("a view of transitions was asked for; no model was given; give one (model, layer) or two")
    ids = [_ids(model, text) for model, _ in models]
    if any(not torch.equal(ids[0], other) for other in ids[1:]):
        raise ValueError(
            f"models side by side need the same tokens; this text has {', '.join(str(i.shape[1]) for i in ids)} of "
            "different kinds; use models of one tokenizer, or give token ids"
        )
    if not ids[0].shape[1]:
        raise ValueError("the text is empty: it has no token; give at least one")
    found = [_view(model, layer, row) for (model, layer), row in zip(models, ids, strict=True)]
    first, layer = models[0]
    with weights_permuted(first, seed):
        found.append(_view(first, layer, ids[0]))
    words = [f"[{int(i)}]" for i in ids[0][0]] if first.tokenizer is None else first.to_str_tokens(ids[0][0])
    names = [f"{model.model_name} block {at}{_how(model, at)}" for model, at in models]
    settings = {"text": text if isinstance(text, str) else ids[0][0].tolist(), "models": names,
                "weights": [model.weights_hash() for model, _ in models]}  # fmt: skip
    return TransitionView(
        tokens=[str(w) for w in words],
        models=[*names, f"control: {first.model_name}, weights permuted"],
        moduli=np.stack([f[0] for f in found]),
        write=np.stack([f[1] for f in found]),
        read=np.stack([f[2] for f in found]),
        provenance=provenance_of(first, seed=seed, settings=settings, control=_CONTROL),
    )


def _ids(model: Any, text: str | Sequence[int]) -> Tensor:
    ids = model.tokenize(text)[0] if isinstance(text, str) else torch.as_tensor(list(text), dtype=torch.long)[None]
    return ids.to(next(model.parameters()).device)


def _view(model: Any, layer: int, ids: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(quantiles of moduli [time, 5], write norms [time], read norms [time])."""
    mixer = _mixer(model, layer)
    with evaluating(model), torch.no_grad():
        x = mixer_inputs(model, mixer, ids)
        carry = mixer.init_carry(1, x.dtype, x.device)
        signals = mixer.project(x, carry, None)[0]
        name = f"blocks.{layer}.mixer.hook_read"
        read = model.run_with_cache(ids, names_filter=name)[1][name][0].flatten(1)
        if mixer.family.transition is None:
            moduli, write = _linearised(model, mixer, layer, ids, mixer.inputs(signals))
        else:
            transition, memory = mixer.transition(signals), getattr(carry, mixer.memory)
            moduli = _moduli(transition, memory)
            write = transition.write()[0].expand(len(read), *memory.shape[1:]).flatten(1)
        at = torch.tensor(QUANTILES, dtype=moduli.dtype, device=moduli.device)
        spread = torch.quantile(moduli, at, dim=1).T
    return tuple(t.double().cpu().numpy() for t in (spread, write.norm(dim=1), read.norm(dim=1)))  # type: ignore[return-value]


def _mixer(model: Any, layer: int) -> Any:
    mixer = model.mixers.get(f"blocks.{layer}.mixer")
    if mixer is None:
        have = sorted(int(n.split(".")[1]) for n in model.mixers if n.endswith(".mixer"))
        raise ValueError(
            f"A, B and C of block {layer} were asked for; {model.model_name} has no recurrent carry there; layers with "
            f"one: {', '.join(map(str, have)) or 'none'}"
        )
    if mixer.family.transition is None and mixer.family.attention is not None:
        raise ValueError(
            f"A, B and C of block {layer} were asked for; {type(mixer).__name__} keeps its sums relative to a running "
            "maximum, so that no matrix of them means the same at two tokens; its effective attention (the States "
            "page) shows which token is read where"
        )
    return mixer


def _how(model: Any, layer: int) -> str:
    return "" if _mixer(model, layer).family.transition is not None else ", linearised"


def _linearised(
    model: Any, mixer: Any, layer: int, ids: Tensor, inputs: Any
) -> tuple[Float[Tensor, "time eigenvalue"], Float[Tensor, "time entry"]]:
    """(moduli of the Jacobian of each token's step at the memory before it, what the step adds beside it)."""
    fields = mixer.Memory._fields
    names = [f"{hook_names.mixer_state(layer)}_{field}" for field in fields]
    cache = model.run_with_cache(ids, names_filter=names, states="all")[1]
    after = [cache[name][0].double() for name in names]
    start = mixer.memory_of(mixer.init_carry(1, torch.float64, ids.device))
    memory = torch.cat([torch.cat([a.flatten(1) for a in start], 1), torch.cat([a.flatten(1) for a in after], 1)[:-1]])
    sizes, time = [a[0].numel() for a in after], ids.shape[1]
    if (cost := 25 * float(sum(sizes)) ** 3 * time) > _WORK:
        raise ValueError(
            f"the Jacobians of a carry of {sum(sizes)} numbers at {time} tokens were asked for; their eigenvalues take "
            f"{cost:.1g} operations (the limit is {_WORK:.0g}); give a text of at most "
            f"{int(_WORK / 25 / sum(sizes) ** 3)} tokens"
        )
    wide = type(inputs)(*(x.double() if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs))
    moduli, write = [], []
    for t in range(time):
        here = mixer.family.at(wide, t)

        def step(flat: Tensor, here: Any = here) -> Tensor:
            parts = flat.split(sizes)
            before = mixer.Memory(*(part.view(1, *a.shape[1:]) for part, a in zip(parts, after, strict=True)))
            return torch.cat([x.flatten() for x in mixer.family.step(here, before)[0]])

        jacobian = torch.func.jacrev(step)(memory[t])
        moduli.append(torch.linalg.eigvals(jacobian).abs())
        write.append(step(memory[t]) - jacobian @ memory[t])
    return torch.stack(moduli), torch.stack(write)


def _moduli(transition: Any, memory: Tensor) -> Float[Tensor, "time eigenvalue"]:
    """|eigenvalue| of each A_t. A diagonal one has its decays, each as often as it acts on an entry of `memory`."""
    if transition.left is None:
        decay = transition.decay.abs()[0]
        return decay.expand(len(decay), *memory.shape[1:]).flatten(1)
    # The value axis only repeats the eigenvalues of the key axis.
    operator = transition.operator(memory.shape[-2])[0]
    return torch.linalg.eigvals(operator.double()).abs().flatten(1)
