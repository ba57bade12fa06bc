"""What a recurrent layer carries along a text, and what happens to the predictions when that carry is changed.

`state_trace` looks at the carry after every token; `state_intervention` scales it, zeroes it or takes it from another
text at one token, and compares the model that goes on from there with the untouched one and with random edits of the
same norm. Both know the state contract (`strobe.models.hooked`) and no architecture.

The carry at position t crosses from token t to t+1, so an edit there cannot reach the prediction made *at* token t: the
first prediction it can reach is the one made at token t+1. That one is called `first` here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from strobe.core import hook_names
from strobe.core.provenance import Provenance
from strobe.core.result import Result

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects
    import torch

Tick = Callable[[int, int, str], None]
"""Called with (done, total, what) between pieces of work; it may raise to cancel."""

# Tokens whose carries are held at once while a text is traced.
_PIECE = 64
# Bytes of effective attention that are kept; heads * time^2 * 4 must stay below.
_ATTENTION_LIMIT = 64 * 2**20


@dataclass(frozen=True)
class StateTrace(Result):
    """The carry of one layer after every token of a text.

    `norms` [time, heads]: Euclidean norm of the memory of each head (one column where the memory has no heads).
    `channels` [time, channels]: the memory itself where it is a vector (`signed`), else the norm of each row (key
    channel) of each head's matrix, heads one after the other. `attention` [heads, query, key]: effective attention, how
    much of token s is in the read of token t (`strobe.kernels.linear`), or None for the reason in `attention_note`.
    `control` [time, heads]: the norms when the same tokens come in a shuffled order.
    """

    tokens: list[str]
    layer: int
    mixer: str
    memory: str
    norms: Float[np.ndarray, "time heads"]
    channels: Float[np.ndarray, "time channels"]
    signed: bool
    control: Float[np.ndarray, "time heads"]
    attention: Float[np.ndarray, "attention_heads time time"] | None
    attention_note: str

    def figure(self, *, per_head: bool = False, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Norm of the carry along the text, whole or a line per head, with the shuffled text as control."""
        from strobe.probes import state_figures

        return state_figures.norms(self, per_head=per_head, template=template)

    def channel_figure(
        self, *, what: str = "channels", template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Heat map of "channels" (or "heads") against tokens. Raises ValueError for another `what`."""
        from strobe.probes import state_figures

        return state_figures.channel_map(self, what=what, template=template)

    def attention_figure(
        self, head: int | None = None, template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Effective attention of one head, or the mean of |E| over heads. Raises ValueError where there is none."""
        from strobe.probes import state_figures

        return state_figures.attention(self, head=head, template=template)

    @property
    def norm_changes(self) -> list[float]:
        """How much the norm of the whole memory grew (or shrank) with each token."""
        return np.diff(total_norm(self.norms), prepend=0.0).tolist()

    def to_frame(self) -> "pandas.DataFrame":
        """One row per token and head: position, token, head, norm, norm_shuffled."""
        import pandas

        time, heads = self.norms.shape
        at, head = np.repeat(np.arange(time), heads), np.tile(np.arange(heads), time)
        return pandas.DataFrame(
            {
                "position": at,
                "token": [self.tokens[i] for i in at],
                "head": head,
                "norm": self.norms.ravel(),
                "norm_shuffled": self.control.ravel(),
            }
        )

    def summary(self) -> str:
        """Where the carry is smallest and largest, beside the shuffled control."""
        total, shuffled = total_norm(self.norms), total_norm(self.control)
        return (
            f"carry {self.memory} of layer {self.layer} ({self.mixer}) over {len(self.tokens)} tokens: norm "
            f"{total.min():.3g} to {total.max():.3g}, {total[-1]:.3g} at the end "
            f"(same tokens shuffled: {shuffled[-1]:.3g})"
        )


@dataclass(frozen=True)
class StateIntervention(Result):
    """What a changed carry does to the predictions, beside the untouched run and random edits of the same norm.

    `runs`: "untouched", "edited", "random 1", ... `tokens`: the text, and where the edit is at its last token the one
    token that every run goes on with. `kl` [runs, time]: KL(untouched || run) in nats of the prediction made at each
    token; NaN up to `position`, which no edit can reach. `first_probabilities`, `end_probabilities` [runs, k]:
    next-token probabilities at the first prediction the edit reaches and at the last token, of the tokens that are
    likely in the untouched or the edited run. `continuations`: new tokens of untouched, edited and random 1, sampled
    with the same noise. `carry_norm` and `edit_norm`: Euclidean norms of the memory before and of the change.
    """

    tokens: list[str]
    position: int
    layer: int
    edit: str
    runs: list[str]
    kl: Float[np.ndarray, "runs time"]
    first_tokens: list[str]
    first_probabilities: Float[np.ndarray, "runs k_first"]
    end_tokens: list[str]
    end_probabilities: Float[np.ndarray, "runs k_end"]
    continuations: list[list[str]]
    carry_norm: float
    edit_norm: float

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        settings = self.provenance.settings
        if (written := settings.get("stopped_after")) is None:
            return ""
        return f"cut short after {written} of {settings['max_new_tokens']} new tokens"

    def figure(
        self, *, at: Literal["first", "end"] = "first", template: str = "strobe_light"
    ) -> "plotly.graph_objects.Figure":
        """Next-token probabilities of all runs, at the first prediction the edit reaches or at the end."""
        from strobe.probes import state_figures

        return state_figures.distributions(self, at=at, template=template)

    def kl_figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """How far the predictions are from the untouched run at every later token, with the random edits' range."""
        from strobe.probes import state_figures

        return state_figures.divergence(self, template=template)

    @property
    def first_kl(self) -> Float[np.ndarray, " runs"]:
        """KL(untouched || run) in nats at the first prediction the edit can reach."""
        return self.kl[:, self.position + 1]

    @property
    def end_kl(self) -> Float[np.ndarray, " runs"]:
        """KL(untouched || run) in nats at the last token."""
        return self.kl[:, -1]

    def to_frame(self) -> "pandas.DataFrame":
        """One row per run and token after the edit: run, position, token, kl (nats)."""
        import pandas

        later = range(self.position + 1, len(self.tokens))
        rows = [(run, t, self.tokens[t], self.kl[i, t]) for i, run in enumerate(self.runs) for t in later]
        return pandas.DataFrame(rows, columns=["run", "position", "token", "kl"])

    def summary(self) -> str:
        """The effect in nats beside that of the random edits."""
        lines = [f"{self.edit}; the change has norm {self.edit_norm:.3g}, the carry {self.carry_norm:.3g}"]
        lines += [self.partial] if self.partial else []
        for place, kl in (("first reachable prediction", self.first_kl), ("last token", self.end_kl)):
            lines.append(
                f"{place}: KL {kl[1]:.4g} nats; random edits of that norm: median {np.median(kl[2:]):.4g}, "
                f"{kl[2:].min():.4g} to {kl[2:].max():.4g} ({len(kl) - 2} draws)"
            )
        return "\n".join(lines)


def recurrent_layers(model: Any) -> list[int]:
    """The layers of `model` whose mixer has a carry that can be looked at and changed."""
    return sorted(int(name.split(".")[1]) for name in model.mixers if name.endswith(".mixer"))


def state_trace(
    model: Any,
    text: str | Sequence[int],
    layer: int,
    *,
    attention: bool = True,
    seed: int = 0,
    progress: Tick | None = None,
) -> StateTrace:
    """The carry of `layer` after every token of `text` (a text, or token ids).

    Carries are read in pieces of the text, so that memory does not grow with its length. Effective attention is left
    out, with the reason in the result, where the layer is not linear in its carry or the matrix would take over 64 MiB.
    Raises ValueError for empty text or a layer without a recurrent carry.
    """
    import torch

    mixer, tick = _mixer(model, layer), progress or _no_tick
    tokens = _tokens(model, text)
    generator = torch.Generator().manual_seed(seed)
    shuffled = tokens[:, torch.randperm(tokens.shape[1], generator=generator).to(tokens.device)]
    norms, channels, signed = _along(model, tokens, layer, lambda d, n: tick(d, 2 * n, "reading the carry"))
    control, _, _ = _along(model, shuffled, layer, lambda d, n: tick(n + d, 2 * n, "control: shuffled tokens"))
    matrix, note = _effective_attention(model, mixer, tokens, norms.shape[0]) if attention else (None, "not asked for")
    return StateTrace(
        tokens=_words(model, tokens),
        layer=layer,
        mixer=type(mixer).__name__,
        memory=mixer.memory,
        norms=norms,
        channels=channels,
        signed=signed,
        control=control,
        attention=matrix,
        attention_note=note,
        provenance=_provenance(
            model, text, seed, {"layer": layer, "attention": attention}, "same tokens in shuffled order"
        ),
    )


def state_intervention(
    model: Any,
    text: str | Sequence[int],
    layer: int,
    position: int,
    kind: Literal["scale", "zero", "splice"],
    *,
    value: float | None = None,
    splice_text: str | Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    max_new_tokens: int = 24,
    temperature: float = 0.0,
    n_controls: int = 8,
    top_k: int = 6,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[StateIntervention], None] | None = None,
) -> StateIntervention:
    """Change the carry of `layer` after token `position` (negatives count from the end) and let the model go on.

    `kind`: "scale" multiplies the memory by `value`; "zero" sets it to 0; "splice" puts in the memory that the layer
    has after the whole of `splice_text`. The short windows (convolution, token shift) are left, and so is what a block
    carries beside its mixer (the channel mix of RWKV): a hook on its own ``hook_carry`` reaches that. `heads`: only
    these, along the axis after the batch. Each control adds to the memory a random direction of the same norm (head by
    head, where the memory has heads). Continuations are greedy at `temperature` 0, and drawn a token of each in turn:
    where `progress` raises among them, `partial` is given the predictions and the texts as far as they had come.

    Raises ValueError for empty text, an unknown kind, a missing value, a layer without a recurrent carry or an edit
    that changes nothing, and IndexError for a position outside the text.
    """
    from strobe.probes import state_edit

    tick = progress or _no_tick
    mixer, tokens = _mixer(model, layer), _tokens(model, text)
    if not -tokens.shape[1] <= position < tokens.shape[1]:
        raise IndexError(
            f"edit asked for at position {position}; the text has {tokens.shape[1]} tokens (0 to {tokens.shape[1] - 1})"
        )
    position %= tokens.shape[1]
    sampling = state_edit.Sampling(max_new_tokens, temperature, seed)
    plan = state_edit.plan(model, mixer, tokens, layer, position, kind, value, _maybe_tokens(model, splice_text), heads)
    settings = {
        "layer": layer, "position": position, "kind": kind, "value": value, "splice_text": _plain(splice_text),
        "heads": None if heads is None else list(heads), "max_new_tokens": max_new_tokens, "temperature": temperature,
        "n_controls": n_controls,
    }  # fmt: skip
    control = f"random edit of the memory with the same norm, {n_controls} draws"

    def result(outcome: state_edit.Outcome) -> StateIntervention:
        stopped = {} if outcome.stopped is None else {"stopped_after": outcome.stopped}
        return StateIntervention(
            tokens=_words(model, tokens) + outcome.extra,
            position=position,
            layer=layer,
            edit=plan.words,
            runs=["untouched", "edited", *(f"random {i + 1}" for i in range(n_controls))],
            kl=outcome.kl,
            first_tokens=outcome.first[0],
            first_probabilities=outcome.first[1],
            end_tokens=outcome.end[0],
            end_probabilities=outcome.end[1],
            continuations=outcome.continuations,
            carry_norm=plan.carry_norm,
            edit_norm=plan.edit_norm,
            provenance=_provenance(model, text, seed, {**settings, **stopped}, control),
        )

    cut_short = lambda outcome: partial(result(outcome)) if partial is not None else None
    return result(state_edit.carry_out(model, plan, tokens, sampling, n_controls, top_k, tick, cut_short))


def total_norm(norms: Float[np.ndarray, "time heads"]) -> Float[np.ndarray, " time"]:
    """The norm of the whole memory from those of its heads."""
    return np.sqrt((norms.astype(np.float64) ** 2).sum(1))


def _along(
    model: Any, tokens: "torch.Tensor", layer: int, tick: Callable[[int, int], None]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """(norms [time, heads], channels [time, channels], whether channels are signed values)."""
    import torch

    name, time = hook_names.mixer_state(layer), tokens.shape[1]
    state, norms, channels, signed = None, [], [], False
    for start in range(0, time, _PIECE):
        tick(start, time)
        with torch.no_grad():
            (_, state), cache = model.run_with_cache(
                tokens[:, start : start + _PIECE], names_filter=name, states="all", state=state, return_type="state"
            )
        memory = cache[name][0].float()
        signed = memory.ndim == 2
        norms.append(
            memory.flatten(2).norm(dim=-1) if memory.ndim == 4 else memory.flatten(1).norm(dim=-1, keepdim=True)
        )
        channels.append(memory if signed else memory.norm(dim=-1).flatten(1))
    return torch.cat(norms).cpu().numpy(), torch.cat(channels).cpu().numpy(), signed


def _effective_attention(model: Any, mixer: Any, tokens: "torch.Tensor", time: int) -> tuple[np.ndarray | None, str]:
    import torch

    from strobe.kernels.linear import effective_attention

    if mixer.family.attention is None:
        name = f"{type(mixer).__name__} ({mixer.family.name})"
        return None, f"the scan family of {name} gives none: a read there is no sum over earlier tokens"
    kept: list[torch.Tensor] = []
    handle = mixer.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    try:
        with torch.no_grad():
            model.forward(tokens)
    finally:
        handle.remove()
    with torch.no_grad():
        carry = mixer.init_carry(1, kept[0].dtype, kept[0].device)
        signals = mixer.inputs(mixer.project(kept[0], carry, None)[0])
        heads = _attention_heads(mixer)
        if (size := heads * time * time * 4) > _ATTENTION_LIMIT:
            too_large = f"{heads} heads x {time}² tokens would take {size / 2**20:.0f} MiB (the limit is 64)"
            return None, f"{too_large}; give a shorter text"
        matrix = effective_attention(mixer.family, signals)[0]
    note = "shown as |E|, which is complex here" if matrix.is_complex() else ""
    return (matrix.abs() if matrix.is_complex() else matrix).float().cpu().numpy(), note


def _attention_heads(mixer: Any) -> int:
    import torch

    memory = getattr(mixer.init_carry(1, torch.float32, torch.device("meta")), mixer.memory)
    return int(memory.shape[1])


def _mixer(model: Any, layer: int) -> Any:
    layers = recurrent_layers(model)
    if layer not in layers:
        have = f"layers with one: {', '.join(map(str, layers))}" if layers else "this model has none"
        raise ValueError(f"the state of layer {layer} was asked for, which has no recurrent carry; {have}")
    return model.mixers[f"blocks.{layer}.mixer"]


def _tokens(model: Any, text: str | Sequence[int]) -> "torch.Tensor":
    import torch

    if isinstance(text, str):
        return model.tokenize(text)[0]
    if not len(text):
        raise ValueError("the text is empty: it has no token; give at least one")
    return torch.as_tensor(list(text), device=next(model.parameters()).device)[None]


def _maybe_tokens(model: Any, text: str | Sequence[int] | None) -> "torch.Tensor | None":
    return None if text is None else _tokens(model, text)


def _words(model: Any, tokens: "torch.Tensor") -> list[str]:
    """Each token's text; its number in brackets where the model has no tokenizer."""
    if model.tokenizer is None:
        return [f"[{int(t)}]" for t in tokens.flatten()]
    return [str(word) for word in model.to_str_tokens(tokens.flatten())]


def _plain(text: str | Sequence[int] | None) -> str | list[int] | None:
    return text if text is None or isinstance(text, str) else [int(t) for t in text]


def _provenance(model: Any, text: Any, seed: int, settings: dict[str, Any], control: str) -> Provenance:
    return Provenance(
        model=model.model_name,
        weights_hash=model.weights_hash(),
        seed=seed,
        settings={"text": _plain(text), **settings},
        backend=dict(model.ran),
        control=control,
    )


def _no_tick(done: int, total: int, message: str) -> None:
    """Nobody is watching."""
