"""Token importance: how much the final prediction changes when what one token wrote into a carry is taken out.

For a mixer that is linear in its carry, M_t = A_t M_{t-1} + B_t, the write B_s of token s is subtracted from the carry
after s, and the model goes on: everything later is as if s had only decayed the memory. For another recurrent mixer
there is no such write, and every field of the memory is put back to what it was before s. Token s's own read is left
either way. That, the control and the recurrence intervals are ours. The control moves each field by a random change of
the same norm; of sums kept relative to a running maximum (RWKV-4) it moves the numerator alone.

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
from strobe.probes.partial import keeping
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
    change. `what`: "write taken out" or "memory put back". `tokens` [time]. Of a run that was ended before its last
    token, the tokens that were not reached are NaN."""

    tokens: list[str]
    layer: int
    what: str
    kl: Float[np.ndarray, " earlier"]
    control: Float[np.ndarray, " earlier"]
    norm: Float[np.ndarray, " earlier"]

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        reached = int(np.isfinite(self.kl).sum())
        return "" if reached == len(self.kl) else f"cut short after {reached} of {len(self.kl)} tokens"

    def intervals(self, share: float = 0.2, *, seed: int = 0) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
        """(distances in tokens between the `share` of most important tokens, the same of shuffled importances).

        Tokens as important as the last that the share takes in are taken in too: where a token stands decides nothing.
        Raises ValueError for a share that leaves fewer than two tokens or takes in all of them, and for a run that was
        cut short, in which the most important may not have been reached.
        """
        if self.partial:
            raise ValueError(
                f"intervals between the most important tokens were asked for; this run was {self.partial}, and those "
                "may be among the rest; run it again to its end"
            )
        n = round(share * len(self.kl))
        if not 2 <= n <= len(self.kl):
            raise ValueError(
                f"intervals between the top {share:g} of {len(self.kl)} tokens were asked for; that is {n} tokens, and "
                "two at least make an interval; give a larger share or a longer text"
            )
        least = np.sort(self.kl)[-n]
        if least == self.kl.min():
            raise ValueError(
                f"intervals between the top {share:g} of {len(self.kl)} tokens were asked for; with those equal to the "
                "least of them that is every token; give a smaller share, or a text with tokens that matter more"
            )
        shuffled = np.random.default_rng(seed).permutation(self.kl)
        first, second = (np.diff(np.flatnonzero(x >= least)) for x in (self.kl, shuffled))
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
        title: dict[str, Any] = {"text": f"Importance of each token to the last prediction, block {self.layer}"}
        if self.partial:
            title["subtitle"] = {"text": self.partial}
        fig.update_layout(title=title)
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
        best, reached = int(np.nanargmax(self.kl)), np.isfinite(self.kl)
        return (
            f"block {self.layer}, {self.what}: mean KL {self.kl[reached].mean():.3g} nats over {reached.sum()} tokens "
            f"(random change of the same norm: {self.control[reached].mean():.3g}); largest {self.kl[best]:.3g} at "
            f"token {best} {self.tokens[best]!r}{'; ' if self.partial else ''}{self.partial}"
        )


def token_importance(
    model: Any,
    text: str | Sequence[int],
    layer: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    partial: Callable[[TokenImportance], None] | None = None,
) -> TokenImportance:
    """Take each token's write out of the carry of `layer` in turn, and see what becomes of the last prediction.

    Two passes over the text for each of its tokens. Where `progress` raises, `partial` is given the tokens that were
    taken out by then, if any. Raises ValueError for fewer than two tokens, and for a layer without a recurrent carry:
    attention has none, and an ablation there is another question.
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
    kl, control, norm = (np.full(n, np.nan) for _ in range(3))
    words = [f"[{int(i)}]" for i in ids[0]] if model.tokenizer is None else model.to_str_tokens(ids[0])
    settings = {"text": text if isinstance(text, str) else ids[0].tolist(), "layer": layer}

    def result() -> TokenImportance:
        return TokenImportance(
            tokens=[str(w) for w in words],
            layer=layer,
            what=what,
            kl=kl,
            control=control,
            norm=norm,
            provenance=provenance_of(model, seed=seed, settings=settings, control=_CONTROL),
        )

    with evaluating(model), torch.no_grad():
        changes, what = _changes(model, mixer, layer, ids)
        whole = model.forward(ids)[0, -1].double().log_softmax(-1)
        tick = keeping(progress, partial, lambda: result() if s else None)
        for s in range(n):
            tick(s, n, "taking out a token's write")
            change = {field: x[s] for field, x in changes.items()}
            noise = _noise(change, generator, [mixer.memory] if _relative(mixer) else list(change))
            kl[s], control[s] = (_kl(model, ids, layer, s, x, whole) for x in (change, noise))
            norm[s] = float(sum(x.double().square().sum() for x in change.values()) ** 0.5)
        return result()


def _changes(model: Any, mixer: Any, layer: int, ids: Tensor) -> tuple[dict[str, Tensor], str]:
    """What is added to each field of the memory after each token [time, ...], and what that is called."""
    if mixer.family.transition is not None:
        x = mixer_inputs(model, mixer, ids)
        signals = mixer.project(x, mixer.init_carry(1, x.dtype, x.device), None)[0]
        return {mixer.memory: -mixer.transition(signals).write()[0]}, "write taken out"
    names = {field: f"{hook_names.mixer_state(layer)}_{field}" for field in mixer.Memory._fields}
    cache = model.run_with_cache(ids, names_filter=list(names.values()), states="all")[1]
    found = {}
    for field, name in names.items():
        memory = cache[name][0]
        start = getattr(mixer.init_carry(1, memory.dtype, memory.device), field)
        found[field] = torch.cat([start, memory[:-1]]) - memory
    return found, "memory put back"


def _relative(mixer: Any) -> bool:
    # Sums kept relative to a running maximum, of which one divides the other: moved at random, that one could be 0.
    return mixer.family.transition is None and mixer.family.attention is not None


def _noise(change: dict[str, Tensor], generator: torch.Generator, fields: list[str]) -> dict[str, Tensor]:
    """A random direction in each of `fields`, as long as the change of that field."""
    found = {}
    for field in fields:
        x = torch.randn(change[field].shape, generator=generator, dtype=torch.float64).to(change[field])
        found[field] = x * (change[field].norm() / x.norm())
    return found


def _kl(model: Any, ids: Tensor, layer: int, s: int, change: dict[str, Tensor], whole: Tensor) -> float:
    edits = [StateEdit(layer=layer, position=s, kind="add", value=x[None], field=f) for f, x in change.items()]
    edited = model.run_with_edits(ids, edits)[0, -1].double().log_softmax(-1)
    return float((whole.exp() * (whole - edited)).sum())
