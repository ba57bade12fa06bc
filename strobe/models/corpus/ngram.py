"""An interpolated n-gram model with Witten-Bell smoothing: what counting alone can do.

With c(h, w) how often token w followed history h in training, c(h) the sum over w, and T(h) the number of different w
seen after h, the model of order n is (Witten & Bell 1991, method C; Chen & Goodman 1999, section 2.4)

    P_n(w | h) = (c(h, w) + T(h) P_{n-1}(w | h')) / (c(h) + T(h)),     h' = h without its oldest token,

with P_n = P_{n-1} where h was never seen, and P_0 uniform over the vocabulary. A history of n - 1 tokens is one
integer in base `vocab`, so an order is two sorted arrays, and scoring is a binary search for all tokens at once.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Integer


class _Order(NamedTuple):
    """Counts of one order: sorted n-grams and sorted histories, each with their figures."""

    grams: np.ndarray
    gram_counts: np.ndarray
    histories: np.ndarray
    history_counts: np.ndarray
    history_types: np.ndarray


class WittenBell:
    """Witten-Bell interpolated n-gram model of `order` over the tokens 0..vocab-1.

    Raises ValueError where an n-gram does not fit 63 bits, where `tokens` is shorter than an n-gram, or holds an id
    outside the vocabulary.
    """

    def __init__(self, tokens: Integer[np.ndarray, " n_tokens"], *, order: int = 5, vocab: int = 1024):
        if order < 1 or vocab**order >= 2**63:
            raise ValueError(
                f"order {order} over {vocab} tokens was asked for; an n-gram is kept as one 63-bit integer; "
                "ask for an order of at least 1 that fits"
            )
        if len(tokens) < order:
            raise ValueError(f"order {order} was asked for; found {len(tokens)} training tokens; give at least {order}")
        self.order, self.vocab = order, vocab
        self._orders = [self._count(tokens, n) for n in range(1, order + 1)]

    def _count(self, tokens: np.ndarray, n: int) -> _Order:
        grams, gram_counts = np.unique(self._grams(tokens, n), return_counts=True)
        histories, first = np.unique(grams // self.vocab, return_index=True)
        types = np.diff(np.append(first, len(grams)))
        return _Order(grams, gram_counts, histories, np.add.reduceat(gram_counts, first), types)

    def _grams(self, tokens: np.ndarray, n: int) -> np.ndarray:
        """Every n-gram of `tokens` as an integer, the newest token in the lowest place: [n_tokens - n + 1]."""
        tokens = np.asarray(tokens, dtype=np.int64)
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocab:
            raise ValueError(
                f"token ids 0..{self.vocab - 1} were expected; found {tokens.min()}..{tokens.max()}; "
                "pass the vocabulary these tokens were made with"
            )
        grams = np.zeros(max(len(tokens) - n + 1, 0), dtype=np.int64)
        for i in range(n):
            grams = grams * self.vocab + tokens[i : i + len(grams)]
        return grams

    def probabilities(self, tokens: Integer[np.ndarray, " n_tokens"]) -> Float64[np.ndarray, " n_tokens"]:
        """Probability of each token given those before it; the first ones have a shorter history."""
        p = np.full(len(tokens), 1 / self.vocab)
        for n, counts in enumerate(self._orders, start=1):
            grams = self._grams(tokens, n)
            p[n - 1 :] = _interpolate(p[n - 1 :], grams, grams // self.vocab, counts)
        return p

    def distribution(self, history: Integer[np.ndarray, " n_history"]) -> Float64[np.ndarray, " vocab"]:
        """Probability of every token after `history`, of which the last order - 1 tokens matter."""
        candidates = np.arange(self.vocab)
        p = np.full(self.vocab, 1 / self.vocab)
        for n, counts in enumerate(self._orders[: len(history) + 1], start=1):
            history_key = self._grams(history[len(history) - (n - 1) :], n - 1)[0]
            grams = history_key * self.vocab + candidates
            p = _interpolate(p, grams, grams // self.vocab, counts)
        return p

    def nats_per_token(self, tokens: Integer[np.ndarray, " n_tokens"]) -> float:
        """Mean cross-entropy over all of `tokens`, in nats."""
        return float(-np.log(self.probabilities(tokens)).mean())


def _interpolate(lower: np.ndarray, grams: np.ndarray, histories: np.ndarray, counts: _Order) -> np.ndarray:
    c_hw = _look_up(grams, counts.grams, counts.gram_counts)
    c_h = _look_up(histories, counts.histories, counts.history_counts)
    t_h = _look_up(histories, counts.histories, counts.history_types)
    seen = c_h > 0
    return np.where(seen, (c_hw + t_h * lower) / np.where(seen, c_h + t_h, 1), lower)


def _look_up(wanted: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``values`` at the places of `wanted` in the sorted `keys`, 0 where it is not among them."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)
