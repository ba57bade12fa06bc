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
from strobe.probes.partial import keeping
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

    Where `progress` raises, `partial` is given the sentences that were finished; in the middle of the first, the copies
    of it that were said, if they are two or more. Raises ValueError for fewer than two copies, no sentence, or one with
    no token that is predicted.
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
    saying: _Saying | None = None

    def result() -> SelfReinforcement:
        return _result(torch.cat(p, 2), torch.cat(wins, 2), len(p), trained, provenance)

    def so_far() -> SelfReinforcement | None:
        if p:
            return result()
        if saying is None or (said := saying.copies(first)) is None:
            return None
        return _result(*said, 1, min(trained, said[0].shape[1]), provenance)

    tick = keeping(progress, partial, so_far)
    for i, row in enumerate(rows):
        saying = _Saying(model, before, _variants(model, row, copies, generator))
        while saying.left:
            done, total = i * saying.total + saying.at, len(rows) * saying.total
            tick(done, total, f"repeating sentence {i + 1} of {len(rows)}")
            saying.go_on()
        whole = saying.copies(first)
        assert whole is not None
        p.append(whole[0])
        wins.append(whole[1])
    return result()


def _result(p: Tensor, wins: Tensor, n_sentences: int, trained: int, provenance: Any) -> SelfReinforcement:
    """Of the probabilities and wins [run, copies, tokens] of the sentences so far."""
    curves = [reinforcement(a, b) for a, b in zip(p.numpy(), wins.numpy(), strict=True)]
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


class _Saying:
    """One sentence's copies [run, copies, tokens] behind a prefix, said a piece at a time: the probability of each
    token given all before it, and whether it is the most likely; where nothing comes before the first, 0 and False."""

    def __init__(self, model: Any, prefix: Tensor, copies: Tensor) -> None:
        runs, self.n, self.length = copies.shape
        self.model, self.prefix, self.state, self.at = model, len(prefix), None, 0
        device = next(model.parameters()).device
        self.tokens = torch.cat([prefix.expand(runs, -1), copies.flatten(1)], 1).to(device)
        self.p = torch.zeros(self.tokens.shape, dtype=torch.float64)
        self.wins = torch.zeros(self.tokens.shape, dtype=torch.bool)
        self.total = self.tokens.shape[1]

    @property
    def left(self) -> bool:
        """Whether there is something to say."""
        return self.at < self.total - 1

    def go_on(self) -> None:
        """Say the next piece."""
        stop = min(self.at + _PIECE, self.total - 1)
        following = self.tokens[:, self.at + 1 : stop + 1]
        with evaluating(self.model), torch.no_grad():
            piece = self.tokens[:, self.at : stop]
            logits, self.state = self.model.forward(piece, self.state, return_type="state")
            log_p = logits.double().log_softmax(-1).gather(-1, following[..., None])[..., 0]
        self.p[:, self.at + 1 : stop + 1] = log_p.exp().cpu()
        self.wins[:, self.at + 1 : stop + 1] = (logits.argmax(-1) == following).cpu()
        self.at = stop

    def copies(self, first: int) -> tuple[Tensor, Tensor] | None:
        """(probabilities, wins) [run, copies, tokens from `first` on] of the whole copies so far; None for fewer than
        two, as there is nothing to compare with."""
        whole = self.n if not self.left else (self.at + 1 - self.prefix) // self.length
        if whole < 2:
            return None
        behind = slice(self.prefix, self.prefix + whole * self.length)
        p, wins = (x[:, behind].view(len(x), whole, self.length)[:, :, first:] for x in (self.p, self.wins))
        return p, wins


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
