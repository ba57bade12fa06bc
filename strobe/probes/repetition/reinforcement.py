"""Self-reinforcement: does a sentence become likelier each time it has been said?

Xu et al. 2022 (DITTO, arXiv:2206.02369, section 2.2): with P[k, j] the probability of token j of copy k, given all
before it,

    TP_k = mean_j P[k, j]      IP_k = mean_j 1[P[k, j] > P[0, j]]      WR_k = mean_j 1[j is the most likely token]

token-weighted over sentences. Copies follow each other in pieces with the carry (or key/value cache) between, so memory
does not grow with their number times the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from strobe.probes.lens.readout import evaluating
from strobe.probes.provenance import provenance_of
from strobe.probes.repetition.reinforcement_result import SelfReinforcement

Tick = Callable[[int, int, str], None]
# Tokens of one pass.
_PIECE = 256
_CONTROL = "as many random tokens repeated in place of each sentence, and each copy's tokens in an order of its own"


def reinforcement(
    p: Float[np.ndarray, "copies tokens"], wins: Bool[np.ndarray, "copies tokens"]
) -> tuple[Float[np.ndarray, " copies"], Float[np.ndarray, " copies"], Float[np.ndarray, " copies"]]:
    """(TP, IP, WR) of each copy from the probabilities of its tokens and whether each was the most likely.

    IP of the first copy is 0: nothing is above itself.
    """
    return p.mean(1), (p > p[:1]).mean(1), wins.mean(1)


def self_reinforcement(
    model: Any,
    sentences: str | Sequence[str] | Sequence[Sequence[int]],
    *,
    prefix: str | Sequence[int] = "",
    copies: int = 100,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[SelfReinforcement], None] | None = None,
) -> SelfReinforcement:
    """TP, IP and WR of every copy of `sentences` (texts or token ids), each repeated `copies` times after `prefix`.

    Without a prefix nothing predicts the first token of the first copy, so a sentence's first token is left out of all
    copies. Controls, of the same length: random tokens repeated (which the paper finds reinforced as well, only later),
    and the sentence's tokens in a new order in each copy (which has nothing to be reinforced but its words).

    `partial` is given the result so far after each sentence, so that a run that is stopped has one. Raises
    ValueError for fewer than two copies, no sentence, or one with no token that is predicted.
    """
    if copies < 2:
        raise ValueError(f"{copies} copies were asked for; a sentence is compared with its first: give 2 or more")
    rows = [_ids(model, s) for s in ([sentences] if isinstance(sentences, str) else sentences)]
    if not rows:
        raise ValueError("self-reinforcement of no sentence was asked for; give one at least")
    before = _ids(model, prefix, special=True) if len(prefix) else torch.empty(0, dtype=torch.long)
    first = 0 if len(before) else 1
    if short := [len(r) for r in rows if len(r) <= first]:
        raise ValueError(f"a sentence of {short[0]} tokens has none that is predicted; give a longer one, or a prefix")
    generator = torch.Generator().manual_seed(seed)
    settings = {
        "sentences": [r.tolist() for r in rows], "prefix": before.tolist(), "copies": copies,
        "longest": len(before) + copies * max(map(len, rows)),
    }  # fmt: skip
    provenance = provenance_of(model, seed=seed, settings=settings, control=_CONTROL)
    trained = _trained_copies(model, len(before), rows, copies)
    p: list[Tensor] = []
    wins: list[Tensor] = []
    result = None
    for i, row in enumerate(rows):

        def tick(done: int, total: int, i: int = i) -> None:
            if progress is not None:
                progress(i * total + done, len(rows) * total, f"repeating sentence {i + 1} of {len(rows)}")

        some_p, some_wins = _probabilities(model, before, _variants(model, row, copies, generator), tick)
        p.append(some_p[:, :, first:])
        wins.append(some_wins[:, :, first:])
        result = _result(torch.cat(p, 2).numpy(), torch.cat(wins, 2).numpy(), i + 1, trained, provenance)
        if partial is not None:
            partial(result)
    assert result is not None
    return result


def _result(p: np.ndarray, wins: np.ndarray, n_sentences: int, trained: int, provenance: Any) -> SelfReinforcement:
    """Of the probabilities and wins [run, copies, tokens] of the sentences so far."""
    curves = [reinforcement(a, b) for a, b in zip(p, wins, strict=True)]
    tp, ip, wr = (np.stack(column) for column in zip(*curves, strict=True))
    return SelfReinforcement(
        runs=("sentence", "random tokens", "shuffled in each copy"),
        tp=tp,
        ip=ip,
        wr=wr,
        n_tokens=int(p.shape[2]),
        n_sentences=n_sentences,
        trained_copies=trained,
        provenance=provenance,
    )


def _variants(model: Any, row: Tensor, copies: int, generator: torch.Generator) -> Tensor:
    """Token ids [run, copies, tokens]: the sentence, random tokens, and the sentence shuffled in each copy."""
    random = torch.randint(model.cfg.d_vocab, row.shape, generator=generator)
    shuffled = torch.stack([row[torch.randperm(len(row), generator=generator)] for _ in range(copies)])
    return torch.stack([row.expand(copies, -1), random.expand(copies, -1), shuffled])


def _probabilities(
    model: Any, prefix: Tensor, copies: Tensor, tick: Callable[[int, int], None]
) -> tuple[Tensor, Tensor]:
    """(probability of each token, whether it is the most likely) [run, copies, tokens]; where nothing comes before the
    first token, 0 and False."""
    runs, n, length = copies.shape
    tokens = torch.cat([prefix.expand(runs, -1), copies.flatten(1)], 1).to(next(model.parameters()).device)
    p = torch.zeros(tokens.shape, dtype=torch.float64)
    wins = torch.zeros(tokens.shape, dtype=torch.bool)
    state = None
    with evaluating(model), torch.no_grad():
        for start in range(0, tokens.shape[1] - 1, _PIECE):
            tick(start, tokens.shape[1])
            stop = min(start + _PIECE, tokens.shape[1] - 1)
            logits, state = model.forward(tokens[:, start:stop], state, return_type="state")
            following = tokens[:, start + 1 : stop + 1]
            log_p = logits.double().log_softmax(-1).gather(-1, following[..., None])[..., 0]
            p[:, start + 1 : stop + 1] = log_p.exp().cpu()
            wins[:, start + 1 : stop + 1] = (logits.argmax(-1) == following).cpu()
    behind = slice(len(prefix), None)
    return p[:, behind].view(runs, n, length), wins[:, behind].view(runs, n, length)


def _trained_copies(model: Any, prefix: int, rows: list[Tensor], copies: int) -> int:
    """How many copies of the longest sentence fit into the length that the model was trained on."""
    n_ctx = int(getattr(model.cfg, "n_ctx", 0) or 0)
    return copies if n_ctx <= 0 else max(0, min(copies, (n_ctx - prefix) // max(map(len, rows))))


def _ids(model: Any, text: str | Sequence[int], *, special: bool = False) -> Tensor:
    """Token ids [time]; `special`: with the tokens that the tokenizer begins every text with."""
    if isinstance(text, str):
        if model.tokenizer is None:
            raise ValueError(
                f"{model.model_name} came without a tokenizer, so it takes token ids, not the text {text!r}"
            )
        text = model.tokenizer.encode(text, add_special_tokens=special)
    if not len(text):
        raise ValueError("a sentence is empty: it has no token; give at least one")
    return torch.tensor(list(text), dtype=torch.long)
