"""Which heads look back at a repeat: induction, previous-token, duplicate-token and copying scores.

On random tokens in two copies of n (Olsson et al. 2022, arXiv:2209.11895; Elhage et al. 2021), A[i, s] how much of what
is read at i comes from s:

    induction  mean over i in [n, 2n) of A[i, i-n+1]     previous   mean over i in [1, 2n) of A[i, i-1]
    duplicate  mean over i in [n, 2n) of A[i, i-n]       copying    sum(l) / sum |l|, l the eigenvalues of W_E OV W_U

For attention A is the pattern. A mixer that is linear in its carry has an *effective attention* E (`strobe.kernels.
linear`), signed and not normalised; A is |E| over the sum of its row. That is ours, as is measuring OV by experiment
(`strobe.probes.repetition.copying`). Any model at all has the loss of the second copy against that of the first.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.probes.lens.readout import evaluating
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of
from strobe.probes.repetition.copying import copying_scores, through_tokens
from strobe.probes.repetition.head_result import HeadScores

Tick = Callable[[int, int, str], None]
_CONTROL = "the same tokens behind others instead of behind themselves, so that nothing is repeated"
# Heads of one layer and row, times time squared, that are held at once (float32: 256 MB).
_LIMIT = 2**26
_ATTENTION = "attention"


class _Heads(NamedTuple):
    """Of one block: the heads' kind, scores [head, 3], scores on unrepeated tokens, copying [head]."""

    kind: str
    scores: np.ndarray
    control: np.ndarray
    copying: np.ndarray


def pattern_scores(pattern: Float[Tensor, "*batch time time"]) -> Float[Tensor, "*batch 3"]:
    """(induction, previous, duplicate) of patterns over two copies. Raises ValueError for an odd number of tokens.

    Uniform causal attention over two copies of 16 has an induction score of 0.04236, a perfect induction head 1.
    """
    time = pattern.shape[-1]
    if time % 2 or time < 4:
        raise ValueError(f"a pattern over {time} tokens was given; two copies have an even number, 4 or more")
    n = time // 2
    induction = pattern.diagonal(offset=1 - n, dim1=-2, dim2=-1)[..., 1:].mean(-1)
    previous = pattern.diagonal(offset=-1, dim1=-2, dim2=-1).mean(-1)
    duplicate = pattern.diagonal(offset=-n, dim1=-2, dim2=-1).mean(-1)
    return torch.stack([induction, previous, duplicate], -1)


def head_scores(
    model: Any,
    *,
    length: int = 25,
    n_rows: int = 8,
    copying: bool = True,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[HeadScores], None] | None = None,
) -> HeadScores:
    """Score every head of `model` on `n_rows` rows of `length` random tokens, repeated once.

    A layer that has neither a pattern nor an effective attention has no heads here, and the result says why. A channel
    of a mixer whose channels do not mix counts as a head. Where `progress` raises, `partial` is given the scores of the
    blocks that were finished, if any. Raises ValueError for a length below 2, fewer than one row, a model that takes no
    tokens, or more than its positions hold.
    """
    if length < 2 or n_rows < 1:
        raise ValueError(f"{n_rows} rows of {length} tokens were asked for; give 1 row and 2 tokens at least")
    if getattr(getattr(model, "config", None), "d_input", 0):
        raise ValueError(f"copies of tokens were to be made; {model.model_name} takes real-valued inputs")
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randint(model.cfg.d_vocab, (2, n_rows, length), generator=generator)
    repeated = torch.cat([draw[0]] * 2, 1)
    unrepeated = torch.cat([draw[1], draw[0]], 1)
    settings = {"length": length, "n_rows": n_rows, "copying": copying, "n_layers": model.cfg.n_layers}
    blocks: dict[int, _Heads] = {}
    notes: dict[str, str] = {}
    losses = [_loss(model, repeated), _loss(model, unrepeated)]

    def so_far() -> HeadScores:
        provenance = provenance_of(model, seed=seed, settings=settings, control=_CONTROL)
        return _result(blocks, dict(notes), losses, provenance)

    tick = keeping(progress, partial, lambda: so_far() if blocks or notes else None)
    through = None
    for layer in range(model.cfg.n_layers):
        tick(layer, model.cfg.n_layers, f"scoring block {layer}")
        found, kind = _layer_scores(model, layer, repeated)
        if found is None:
            notes[str(layer)] = kind
            continue
        null, _ = _layer_scores(model, layer, unrepeated)
        assert null is not None
        copied = np.full(len(found), np.nan)
        if copying and kind == _ATTENTION:
            through = through_tokens(model) if through is None else through
            copied = copying_scores(model, layer, len(found), through)
        blocks[layer] = _Heads(kind, found, null, copied)
    return so_far()


def _result(blocks: dict[int, _Heads], notes: dict[str, str], losses: list[np.ndarray], provenance: Any) -> HeadScores:
    """Of the blocks so far, by number."""
    heads = [(layer, head, b.kind) for layer, b in blocks.items() for head in range(len(b.scores))]
    empty = np.zeros((0, 3))
    return HeadScores(
        layers=np.array([layer for layer, *_ in heads], dtype=np.int64),
        heads=np.array([head for _, head, _ in heads], dtype=np.int64),
        kinds=[kind for *_, kind in heads],
        scores=np.concatenate([empty, *(b.scores for b in blocks.values())]),
        control=np.concatenate([empty, *(b.control for b in blocks.values())]),
        copying=np.concatenate([empty[:, 0], *(b.copying for b in blocks.values())]),
        loss=losses[0],
        control_loss=losses[1],
        notes=notes,
        provenance=provenance,
    )


def _layer_scores(model: Any, layer: int, tokens: Tensor) -> tuple[np.ndarray | None, str]:
    """(scores [heads, 3], kind), or (None, why there are none)."""
    pattern = next((n for n in model.hook_dict if _is_pattern(n, layer)), None)
    if pattern is not None:
        with evaluating(model), torch.no_grad():
            _, cache = model.run_with_cache(tokens.to(next(model.parameters()).device), names_filter=pattern)
        return pattern_scores(cache[pattern].float()).mean(0).double().cpu().numpy(), _ATTENTION
    mixer = model.mixers.get(f"blocks.{layer}.mixer")
    if mixer is None:
        return None, "neither an attention pattern nor a recurrent mixer can be read in this block"
    if mixer.family.attention is None:
        return None, f"{type(mixer).__name__} is not linear in its carry, so no token's share of a read can be told"
    return _effective(model, mixer, tokens)


def _effective(model: Any, mixer: Any, tokens: Tensor) -> tuple[np.ndarray | None, str]:
    from strobe.kernels.linear import effective_attention

    x = mixer_inputs(model, mixer, tokens)
    total = None
    with torch.no_grad():
        for row in x.split(1):
            signals = mixer.inputs(mixer.project(row, mixer.init_carry(1, row.dtype, row.device), None)[0])
            memory = getattr(mixer.init_carry(1, row.dtype, torch.device("meta")), mixer.memory)
            if (size := memory.shape[1] * row.shape[1] ** 2) > _LIMIT:
                return None, f"{memory.shape[1]} heads x {row.shape[1]}² numbers are {size}, more than {_LIMIT}"
            weights = effective_attention(mixer.family, signals)[0].abs().float()
            # A row that reads nothing at all has no shares; it counts as looking nowhere.
            shares = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            scores = pattern_scores(shares).double()
            total = scores if total is None else total + scores
    assert total is not None
    return (total / len(x)).cpu().numpy(), "effective attention"


def mixer_inputs(model: Any, mixer: Any, tokens: Tensor) -> Float[Tensor, "batch time d_model"]:
    """What `mixer` reads when `model` runs over `tokens` [batch, time]."""
    kept: list[Tensor] = []
    handle = mixer.register_forward_pre_hook(lambda _m, args: kept.append(args[0].detach()))
    try:
        with evaluating(model), torch.no_grad():
            model.forward(tokens.to(next(model.parameters()).device), return_type=None)
    finally:
        handle.remove()
    return kept[0]


def _loss(model: Any, tokens: Tensor) -> Float[np.ndarray, " predictions"]:
    """Cross-entropy (nats) of tokens 1, 2, ..., mean over rows."""
    tokens = tokens.to(next(model.parameters()).device)
    with evaluating(model), torch.no_grad():
        log_p = model.forward(tokens)[:, :-1].double().log_softmax(-1)
    return -log_p.gather(-1, tokens[:, 1:, None])[..., 0].mean(0).cpu().numpy()


def _is_pattern(name: str, layer: int) -> bool:
    parsed = hook_names.parse(name)
    return parsed.layer == layer and parsed.point == "pattern"
