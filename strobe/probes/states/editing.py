"""One change of one layer's carry: working it out, its random equals, and running the model on from all of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.models.generation import generate_stream
from strobe.models.state import ModelState
from strobe.probes.side_by_side import draw_each, words_of

# Tokens whose logits are held at once; every run has its own.
_PIECE = 64


class Sampling(NamedTuple):
    """How continuations are drawn."""

    max_new_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True)
class Plan:
    """The change of each field of the carry [1, ...] after token `position`, and the state it applies to."""

    state: ModelState
    layer: int
    position: int
    change: dict[str, Tensor]
    words: str
    carry_norm: float
    edit_norm: float


class Outcome(NamedTuple):
    """What the runs gave; `extra` is the token added to the text where the edit is at its end. `stopped`: after how
    many new tokens they were stopped, None for runs that were not."""

    kl: Float[np.ndarray, "runs time"]
    first: tuple[list[str], Float[np.ndarray, "runs k"]]
    end: tuple[list[str], Float[np.ndarray, "runs k"]]
    continuations: list[list[str]]
    extra: list[str]
    stopped: int | None


def plan(
    model: Any,
    mixer: Any,
    tokens: Tensor,
    layer: int,
    position: int,
    kind: str,
    value: float | None,
    splice: Tensor | None,
    heads: Sequence[int] | None,
) -> Plan:
    """What the edit changes. Raises ValueError if it is not one or changes nothing."""
    state = model.state_after(tokens[:, : position + 1])
    carry = state.layers[layer].carry
    if kind == "splice":
        if splice is None:
            raise ValueError("a splice was asked for without another text; give splice_text")
        other = model.state_after(splice).layers[layer].carry
        targets = {field: getattr(other, field) for field in mixer.Memory._fields}
        words = f"carry of layer {layer} after token {position} taken from another text"
    elif kind in ("scale", "zero"):
        if kind == "scale" and (value is None or not np.isfinite(value)):
            raise ValueError(f"a scale was asked for with the value {value}; give a finite number, such as value=0.5")
        factor = 0.0 if kind == "zero" else float(value)  # pyright: ignore[reportArgumentType]
        targets = {mixer.memory: getattr(carry, mixer.memory) * factor}
        words = f"memory {mixer.memory} of layer {layer} after token {position} × {factor:g}"
    else:
        raise ValueError(f"edit kind {kind!r} does not exist here; the kinds are scale, zero, splice")
    change = {field: _only(heads, target - getattr(carry, field), field) for field, target in targets.items()}
    norm = _norm(change.values())
    if not norm > 0:
        raise ValueError(f"the edit ({words}) changes nothing: the carry is already what it would become")
    suffix = "" if heads is None else f", heads {', '.join(map(str, heads))} only"
    return Plan(state, layer, position, change, words + suffix, _norm(getattr(carry, f) for f in targets), norm)


def carry_out(
    model: Any,
    plan: Plan,
    tokens: Tensor,
    sampling: Sampling,
    n_controls: int,
    top_k: int,
    tick: Callable[[int, int, str], None],
    cut_short: Callable[[Outcome], None],
) -> Outcome:
    """Run the rest of the text untouched, edited and with each control, then continue the first three, a token of each
    in turn. Where `tick` raises once the predictions are known, `cut_short` is given what there is."""
    if n_controls < 1:
        raise ValueError(f"{n_controls} controls were asked for; an effect without one cannot be read: give 1 or more")
    total = 2 + sampling.max_new_tokens
    tick(0, total, "running on from the edited carry")
    rest, extra, seed = _rest(model, plan, tokens, sampling)
    generator = torch.Generator().manual_seed(sampling.seed)
    changes = [_nothing(plan.change), plan.change, *(random_equal(plan.change, generator) for _ in range(n_controls))]
    watch = lambda: tick(1, total, "predictions after the edit")
    later, first, end = _predictions(model, _edited(plan, changes), rest, watch)
    kl = np.concatenate([np.full((len(changes), plan.position + 1), np.nan), later], 1)
    streams = [
        generate_stream(
            model, rest, sampling.max_new_tokens, state=_edited(plan, [change]), temperature=sampling.temperature,
            seed=seed,
        )
        for change in changes[:3]
    ]  # fmt: skip
    drawn: list[list[int]] = [[] for _ in streams]

    def outcome(stopped: int | None) -> Outcome:
        continuations = [[*extra, *words_of(model, ids)] for ids in drawn]
        return Outcome(kl, _likely(model, first, top_k), _likely(model, end, top_k), continuations, extra, stopped)

    for written in range(1, sampling.max_new_tokens + 1):
        draw_each(streams, drawn)
        try:
            tick(2 + written, total, "continuing: untouched, edited, random")
        except BaseException:
            cut_short(outcome(written if written < sampling.max_new_tokens else None))
            raise
    return outcome(None)


def random_equal(change: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Random directions with the norm of `change`: of each head's matrix [1, heads, key, value], else of the whole."""
    out = {}
    for field, delta in change.items():
        noise = torch.randn(delta.shape, generator=generator, dtype=torch.float64)
        axes = (-2, -1) if delta.ndim == 4 else tuple(range(1, delta.ndim))
        size = torch.linalg.vector_norm(delta.double().cpu(), dim=axes, keepdim=True)
        noise = noise * (size / torch.linalg.vector_norm(noise, dim=axes, keepdim=True))
        out[field] = noise.to(delta)
    return out


def _rest(model: Any, plan: Plan, tokens: Tensor, sampling: Sampling) -> tuple[Tensor, list[str], int]:
    """(tokens after the edit, what was added to the text, seed of the continuation).

    After the last token there is none, and the model's own next token is added: no edit at the last token can change
    which one that is, so every run shares it.
    """
    rest = tokens[:, plan.position + 1 :]
    if rest.shape[1]:
        return rest, [], sampling.seed
    (new,) = generate_stream(model, tokens, 1, temperature=sampling.temperature, seed=sampling.seed)
    return new[:, None], words_of(model, [int(new[0])]), sampling.seed + 1


def _edited(plan: Plan, changes: list[dict[str, Tensor]]) -> ModelState:
    """The state of the plan, one row for each of `changes`, each with its change added."""
    rows = len(changes)
    carries = {n: type(c)(*(x.repeat_interleave(rows, 0) for x in c)) for n, c in plan.state.carries.items()}
    state = replace(plan.state, carries=carries)
    carry = state.layers[plan.layer].carry
    new = {field: getattr(carry, field) + torch.cat([c[field] for c in changes]) for field in plan.change}
    state.layers[plan.layer].carry = carry._replace(**new)
    return state


def _predictions(
    model: Any, state: ModelState, rest: Tensor, tick: Callable[[], None]
) -> tuple[np.ndarray, Tensor, Tensor]:
    """What follows the edit, in float64: KL(untouched || run) [runs, time] of the prediction made at each token of
    `rest`, and the log probabilities [runs, vocab] of the first and of the last. All of those would not fit in memory
    for a large vocabulary.
    """
    rows, kl, first, log_p = next(iter(state.carries.values()))[0].shape[0], [], None, None
    for piece in rest.split(_PIECE, 1):
        tick()
        with torch.no_grad():
            logits, state = model.forward(piece.expand(rows, -1), state, return_type="state")
        log_p = logits.double().log_softmax(-1)
        kl.append((log_p[:1].exp() * (log_p[:1] - log_p)).sum(-1))
        first = log_p[:, 0] if first is None else first
    assert first is not None and log_p is not None
    return torch.cat(kl, 1).cpu().numpy(), first, log_p[:, -1]


def _likely(model: Any, log_p: Tensor, top_k: int) -> tuple[list[str], np.ndarray]:
    """The `top_k` likeliest tokens of the untouched run and of the edited one, most likely in either first."""
    best = log_p[:2].topk(min(top_k, log_p.shape[-1]), -1).indices.flatten().unique()
    order = best[log_p[:2, best].max(0).values.argsort(descending=True)]
    return words_of(model, order.tolist()), log_p[:, order].exp().cpu().numpy()


def _only(heads: Sequence[int] | None, change: Tensor, field: str) -> Tensor:
    if heads is None:
        return change
    size = change.shape[1]
    if not len(heads) or min(heads) < 0 or max(heads) >= size:
        raise ValueError(f"edit asked for heads {list(heads)} of {field!r}, which has {size} (0 to {size - 1})")
    keep = torch.zeros(size, dtype=torch.bool, device=change.device)
    keep[list(heads)] = True
    return change * keep.view(1, -1, *(1,) * (change.ndim - 2))


def _nothing(change: dict[str, Tensor]) -> dict[str, Tensor]:
    return {field: torch.zeros_like(delta) for field, delta in change.items()}


def _norm(tensors: Any) -> float:
    return float(sum(float(t.double().pow(2).sum()) for t in tensors) ** 0.5)
