"""Changing the carry of a layer at one token, and letting the model go on: the ask; `editing` does the work."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from strobe.probes.states.asked import (
    Tick,
    maybe_tokens,
    no_tick,
    plain_text,
    provenance,
    recurrent_mixer,
    token_words,
    tokens_of,
)
from strobe.probes.states.intervention_result import StateIntervention


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
    from strobe.probes.states import editing

    tick = progress or no_tick
    mixer, tokens = recurrent_mixer(model, layer), tokens_of(model, text)
    if not -tokens.shape[1] <= position < tokens.shape[1]:
        raise IndexError(
            f"edit asked for at position {position}; the text has {tokens.shape[1]} tokens (0 to {tokens.shape[1] - 1})"
        )
    position %= tokens.shape[1]
    sampling = editing.Sampling(max_new_tokens, temperature, seed)
    plan = editing.plan(model, mixer, tokens, layer, position, kind, value, maybe_tokens(model, splice_text), heads)
    settings = {
        "layer": layer, "position": position, "kind": kind, "value": value, "splice_text": plain_text(splice_text),
        "heads": None if heads is None else list(heads), "max_new_tokens": max_new_tokens, "temperature": temperature,
        "n_controls": n_controls,
    }  # fmt: skip
    control = f"random edit of the memory with the same norm, {n_controls} draws"

    def result(outcome: editing.Outcome) -> StateIntervention:
        stopped = {} if outcome.stopped is None else {"stopped_after": outcome.stopped}
        return StateIntervention(
            tokens=token_words(model, tokens) + outcome.extra,
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
            provenance=provenance(model, text, seed, {**settings, **stopped}, control),
        )

    cut_short = lambda outcome: partial(result(outcome)) if partial is not None else None
    return result(editing.carry_out(model, plan, tokens, sampling, n_controls, top_k, tick, cut_short))
