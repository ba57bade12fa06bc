"""Direct logit attribution: the difference of two answers' logits, shared out over what wrote the residual stream.

With the final norm's scale held (Elhage et al. 2021; TransformerLens's `logit_attrs`), the readout is linear and

    logit[answer] - logit[other] = sum_c  (W_U[answer] - W_U[other]) . w * c / s   +   constant

exactly, over the components c. Yao et al. 2025 (arXiv:2504.14218), who locate repetition by it, leave the division by s
out in their code; then the sum is not the difference, and prompts of different s are weighed unequally.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from strobe.core.tolerances import relative_error
from strobe.probes.attribution.components import Components, decompose
from strobe.probes.attribution.frozen_norm import freeze_norm
from strobe.probes.attribution.result import LogitAttribution
from strobe.probes.lens.readout import Readout, model_readout
from strobe.probes.provenance import provenance_of

_CONTROL = "the same components on the difference of two tokens drawn at random, {} pairs"
# Relative distance from the model's logits above which they were changed after the unembedding.
_TRANSFORMED = 1e-4
_MEAN = "(mean)"
Prompt = str | Sequence[int]
Answer = str | int


def direct_logit_attribution(
    model: Any,
    prompts: Prompt | Sequence[Prompt],
    answers: Answer | Sequence[Answer],
    others: Answer | Sequence[Answer] | None = None,
    *,
    position: int = -1,
    n_random: int = 20,
    seed: int = 0,
) -> LogitAttribution:
    """Attribute ``logit[answer] - logit[other]`` of the prediction made at `position` of each prompt.

    `prompts`: a text or token ids, or several. `answers`, `others`: a token (its id, or a text of one token) for each
    prompt, or one for all. `others` None: the mean logit of the vocabulary. Where a model changes its logits after the
    unembedding (a soft cap, a scale), it is the logits before that which are shared out, and the result says so.

    Raises ValueError for empty prompts, numbers that do not match, an answer of several tokens, equal answers, or a
    model without a final norm and unembedding that can be followed; IndexError for a position outside a prompt.
    """
    rows = [_ids(model, p) for p in _several(prompts)]
    right = _answers(model, answers, len(rows), "answers")
    wrong = [None] * len(rows) if others is None else _answers(model, others, len(rows), "others")
    if any(a == b for a, b in zip(right, wrong, strict=True)):
        raise ValueError("an answer and its other are the same token, whose difference is 0; give two different tokens")
    if n_random < 1:
        raise ValueError(f"{n_random} random pairs were asked for; a number needs its control: give 1 or more")
    read, seen = model_readout(model), []
    transformed = _is_transformed(model, read)
    generator = torch.Generator().manual_seed(seed)
    pairs = torch.stack([torch.randperm(read.d_vocab, generator=generator)[:2] for _ in range(n_random)])
    for row, a, b in zip(rows, right, wrong, strict=True):
        if not -row.shape[1] <= position < row.shape[1]:
            raise IndexError(f"position {position} was asked for; a prompt has {row.shape[1]} tokens")
        seen.append(_one(model, read, row, position, a, b, pairs, transformed))
    names = max((found[0].names for found in seen), key=len)
    contributions = np.stack([_aligned(values, found.names, names) for found, values, *_ in seen])
    control = np.stack([_aligned(null, found.names, names) for found, _, null, *_ in seen]).mean(0)
    layers = {n: layer for found, *_ in seen for n, layer in zip(found.names, found.layers, strict=True)}
    settings = {
        "prompts": [row[0].tolist() for row in rows], "answers": right, "others": wrong, "position": position,
    }  # fmt: skip
    return LogitAttribution(
        components=names,
        layers=np.array([layers[n] for n in names]),
        contributions=contributions,
        constant=np.array([constant for *_, constant, _, _ in seen]),
        unscaled=np.stack([_aligned(raw, found.names, names) for found, *_, raw, _ in seen]),
        logit_difference=np.array([actual for *_, actual in seen]),
        control=control,
        labels=[(_word(model, a), _MEAN if b is None else _word(model, b)) for a, b in zip(right, wrong, strict=True)],
        transformed=transformed,
        provenance=provenance_of(model, seed=seed, settings=settings, control=_CONTROL.format(n_random)),
    )


def _one(
    model: Any,
    read: Readout,
    row: Tensor,
    position: int,
    a: int,
    b: int | None,
    pairs: Tensor,
    transformed: bool,
) -> tuple[Components, np.ndarray, np.ndarray, float, np.ndarray, float]:
    """(components, contributions, of random pairs [pairs, component], constant, without the scale, the difference)."""
    found = decompose(model, row, position)
    h = found.final[0, 0]
    norm = freeze_norm(model, h[None])
    parts = found.parts[:, 0, 0]
    W_U = read.W_U.to(parts)
    direction = W_U[a] - (W_U.mean(0) if b is None else W_U[b])
    random = W_U[pairs[:, 0]] - W_U[pairs[:, 1]]
    normalized = norm(h)[0] + norm.bias
    unembedded = _unembedded(model, normalized)
    offset = unembedded - normalized @ W_U.T
    b_U = offset[a] - (offset.mean() if b is None else offset[b])
    # The model's own numbers wherever it shows them, so that the sum is checked against what was not summed here.
    logits = unembedded if transformed else found.logits[0, 0].to(parts)
    share = norm(parts)
    return (
        found,
        (share @ direction).double().cpu().numpy(),
        (random @ share.T).double().cpu().numpy(),
        float(norm.bias @ direction + b_U),
        ((norm.weight * norm.unscaled(parts)) @ direction).double().cpu().numpy(),
        float(logits[a] - (logits.mean() if b is None else logits[b])),
    )


def _unembedded(model: Any, normalized: Tensor) -> Tensor:
    """Logits [..., d_vocab] as the unembedding returns them, in the dtype of `normalized`."""
    module = getattr(model, "bridge", model).unembed
    tensors = [*module.named_parameters(), *module.named_buffers()]
    wide = {n: t.detach().to(normalized.dtype) for n, t in tensors if t.is_floating_point()}
    with torch.no_grad():
        return functional_call(module, wide, (normalized,))


def _is_transformed(model: Any, read: Readout) -> bool:
    """Whether logits are changed after the unembedding; asked of the readout, whose logits are the model's."""
    h = torch.randn(3, read.d_model, generator=torch.Generator().manual_seed(0), dtype=read.dtype)
    h = h.to(next(model.parameters()).device)
    norm = freeze_norm(model, h)
    with torch.no_grad():
        return relative_error(_unembedded(model, norm(h) + norm.bias), read(h)) > _TRANSFORMED


def _several(prompts: Any) -> list[Prompt]:
    """One prompt, or several, as a list."""
    if isinstance(prompts, str) or (len(prompts) and isinstance(prompts[0], int)):
        return [prompts]
    if not len(prompts):
        raise ValueError("attribution was asked of no prompt; give one at least")
    return list(prompts)


def _ids(model: Any, prompt: Prompt) -> Tensor:
    if isinstance(prompt, str):
        return model.tokenize(prompt)[0]
    if not len(prompt):
        raise ValueError("a prompt is empty: it has no token; give at least one")
    return torch.tensor([list(prompt)])


def _answers(model: Any, given: Any, n: int, what: str) -> list[int]:
    each = [given] * n if isinstance(given, str | int) else list(given)
    if len(each) != n:
        raise ValueError(f"{len(each)} {what} were given for {n} prompts; give one for each, or one for all")
    ids = [_token(model, x) for x in each]
    for i in ids:
        if not 0 <= i < model.cfg.d_vocab:
            raise ValueError(
                f"token {i} is outside the vocabulary of {model.model_name} (0 to {model.cfg.d_vocab - 1})"
            )
    return ids


def _token(model: Any, answer: Answer) -> int:
    if isinstance(answer, int):
        return answer
    if model.tokenizer is None:
        raise ValueError(f"{model.model_name} came without a tokenizer; give the answer {answer!r} as a token id")
    ids = model.tokenizer.encode(answer, add_special_tokens=False)
    if len(ids) != 1:
        raise ValueError(
            f"the answer {answer!r} is {len(ids)} tokens in {model.model_name}; give one that is one token"
        )
    return int(ids[0])


def _word(model: Any, token: int) -> str:
    return str(token) if model.tokenizer is None else str(model.tokenizer.decode([token]))


def _aligned(values: np.ndarray, names: list[str], wanted: list[str]) -> np.ndarray:
    """`values` [..., component] in the order of `wanted`; 0 where a prompt's block left no remainder."""
    out = np.zeros((*values.shape[:-1], len(wanted)))
    for i, name in enumerate(wanted):
        if name in names:
            out[..., i] = values[..., names.index(name)]
    return out
