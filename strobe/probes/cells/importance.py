"""Token importance: how much the final prediction changes when what one token wrote into a carry is taken out.

For a mixer that is linear in its carry, M_t = A_t M_{t-1} + B_t, the write B_s of token s is subtracted from the carry
after s, and the model goes on: everything later is as if s had only decayed the memory. For another recurrent mixer
there is no such write, and the memory is put back to what it was before s ("undone"). Token s's own read is left
either way. That, the control and the recurrence intervals are ours.

A recurrence interval is the distance in tokens between one important token and the next; of important tokens that lie
anywhere it is geometric, which shuffled importances show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from strobe.core import hook_names
from strobe.core.result import Result
from strobe.models.hooked import StateEdit
from strobe.probes.lens.readout import evaluating
from strobe.probes.provenance import provenance_of
from strobe.probes.repetition.heads import mixer_inputs

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_CONTROL = "a random change of the memory with the same norm at the same token; for intervals, shuffled importances"


@dataclass(frozen=True)
class TokenImportance(Result):
    """`kl` [time - 1]: KL(untouched || without token s) in nats of the prediction after the last token, for every s but
    that one, whose write no prediction sees. `control`: the same for a random change of that norm. `norm`: of the
    change. `what`: "write taken out" or "memory put back". `tokens` [time]."""

    tokens: list[str]
    layer: int
    what: str
    kl: Float[np.ndarray, " earlier"]
    control: Float[np.ndarray, " earlier"]
    norm: Float[np.ndarray, " earlier"]

    def intervals(self, share: float = 0.2, *, seed: int = 0) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """(distances in tokens between the `share` of most important tokens, the same of shuffled importances).

        Raises ValueError for a share that leaves fewer than two tokens.
        """
        n = round(share * len(self.kl))
        if not 2 <= n <= len(self.kl):
            raise ValueError(
                f"intervals between the top {share:g} of {len(self.kl)} tokens were asked for; that is {n} tokens, and "
                "two at least make an interval; give a larger share or a longer text"
            )
        shuffled = np.random.default_rng(seed).permutation(self.kl)
        first, second = (np.diff(np.sort(np.argsort(-x, kind="stable")[:n])) for x in (self.kl, shuffled))
        return first, second

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Importance of each token, beside a random change of the same norm."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig = go.Figure()
        for name, values, color in (
            (self.what, self.kl, figures.colors(template)[0]),
            ("control: random change of that norm", self.control, figures.CONTROL_COLOR),
        ):
            fig.add_bar(x=np.arange(len(values)), y=values, name=name, marker={"color": color})
        figures.token_axis(fig, self.tokens)
        fig.update_yaxes(title_text="KL at the last prediction (nats)")
        fig.update_layout(title={"text": f"Importance of each token to the last prediction, block {self.layer}"})
        return figures.style(fig, template)

    def interval_figure(
        self, share: float = 0.2, *, shuffles: int = 200, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """How far one important token is from the next, beside the mean over `shuffles` of shuffled importances.

        Raises ValueError as `intervals`, and for fewer than one shuffle.
        """
        import plotly.graph_objects as go

        from strobe.core import figures

        if shuffles < 1:
            raise ValueError(f"{shuffles} shuffles were asked for; intervals are shown beside a control: ask for one")
        found = self.intervals(share)[0]
        chance = np.concatenate([self.intervals(share, seed=seed)[1] for seed in range(shuffles)])
        distance = np.arange(1, max(found.max(), chance.max()) + 1)
        seen, expected = (np.bincount(x, minlength=len(distance) + 1)[1:] / len(x) for x in (found, chance))
        fig = go.Figure()
        fig.add_bar(x=distance, y=seen, name=self.what, marker={"color": figures.colors(template)[0]})
        fig.add_scatter(
            x=distance, y=expected, mode="lines+markers", name=f"control: {shuffles} shuffles",
            line={"color": figures.CONTROL_COLOR}, marker={"size": 5},
        )  # fmt: skip
        fig.update_xaxes(title_text="distance to the next important token (tokens)")
        fig.update_yaxes(title_text="share of intervals", rangemode="tozero")
        of = f"the {len(found) + 1} most important of {len(self.kl)} tokens: {len(found)} intervals"
        fig.update_layout(
            title={"text": f"Recurrence intervals, block {self.layer}", "subtitle": {"text": of}}, margin={"t": 90}
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per token but the last: position, token, kl, kl_random, norm."""
        import pandas

        return pandas.DataFrame(
            {
                "position": np.arange(len(self.kl)), "token": self.tokens[:-1], "kl": self.kl,
                "kl_random": self.control, "norm": self.norm,
            }
        )  # fmt: skip

    def summary(self) -> str:
        """The most important token, and the whole beside the control."""
        best = int(np.argmax(self.kl))
        return (
            f"block {self.layer}, {self.what}: mean KL {self.kl.mean():.3g} nats over {len(self.kl)} tokens (random "
            f"change of the same norm: {self.control.mean():.3g}); largest {self.kl[best]:.3g} at token {best} "
            f"{self.tokens[best]!r}"
        )


def token_importance(
    model: Any,
    text: str | Sequence[int],
    layer: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> TokenImportance:
    """Take each token's write out of the carry of `layer` in turn, and see what becomes of the last prediction.

    Two passes over the text for each of its tokens. Raises ValueError for fewer than two tokens, and for a layer
    without a recurrent carry: attention has none, and an ablation there is another question.
    """
    mixer = model.mixers.get(f"blocks.{layer}.mixer")
    if mixer is None:
        have = sorted(int(n.split(".")[1]) for n in model.mixers if n.endswith(".mixer"))
        raise ValueError(
            f"writes of layer {layer} were to be taken out; it has no recurrent carry; layers of {model.model_name} "
            f"with one: {', '.join(map(str, have)) or 'none'}"
        )
    ids = model.tokenize(text)[0] if isinstance(text, str) else torch.as_tensor(list(text))[None]
    ids = ids.to(next(model.parameters()).device)
    if ids.shape[1] < 2:
        raise ValueError(f"the text has {ids.shape[1]} token(s); what one wrote is seen from the next on: give two")
    n, generator = ids.shape[1] - 1, torch.Generator().manual_seed(seed)
    kl, control, norm = (np.zeros(n) for _ in range(3))
    with evaluating(model), torch.no_grad():
        changes, what = _changes(model, mixer, layer, ids)
        whole = model.forward(ids)[0, -1].double().log_softmax(-1)
        for s in range(n):
            if progress is not None:
                progress(s, n, "taking out a token's write")
            change = changes[s]
            noise = torch.randn(change.shape, generator=generator, dtype=torch.float64).to(change)
            noise *= change.norm() / noise.norm()
            kl[s], control[s] = (_kl(model, ids, layer, s, x, mixer.memory, whole) for x in (change, noise))
            norm[s] = float(change.norm())
    words = [f"[{int(i)}]" for i in ids[0]] if model.tokenizer is None else model.to_str_tokens(ids[0])
    settings = {"text": text if isinstance(text, str) else ids[0].tolist(), "layer": layer}
    return TokenImportance(
        tokens=[str(w) for w in words],
        layer=layer,
        what=what,
        kl=kl,
        control=control,
        norm=norm,
        provenance=provenance_of(model, seed=seed, settings=settings, control=_CONTROL),
    )


def _changes(model: Any, mixer: Any, layer: int, ids: Tensor) -> tuple[Tensor, str]:
    """What is added to the memory after each token [time, *memory], and what that is called."""
    if mixer.family.transition is not None:
        x = mixer_inputs(model, mixer, ids)
        signals = mixer.project(x, mixer.init_carry(1, x.dtype, x.device), None)[0]
        return -mixer.transition(signals).write()[0], "write taken out"
    name = hook_names.mixer_state(layer)
    memory = model.run_with_cache(ids, names_filter=name, states="all")[1][name][0]
    start = getattr(mixer.init_carry(1, memory.dtype, memory.device), mixer.memory)
    return torch.cat([start, memory[:-1]]) - memory, "memory put back"


def _kl(model: Any, ids: Tensor, layer: int, s: int, change: Tensor, field: str, whole: Tensor) -> float:
    edit = StateEdit(layer=layer, position=s, kind="add", value=change[None], field=field)
    edited = model.run_with_edits(ids, [edit])[0, -1].double().log_softmax(-1)
    return float((whole.exp() * (whole - edited)).sum())
